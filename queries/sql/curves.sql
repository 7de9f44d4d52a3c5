-- One value for each window of time of every sensor of one quantity, as `windows` says it: the curves of
-- the front page.
-- param: quantity part default water_temperature # like water_temperature
-- param: every duration default 30min # the length of a window
-- param: from timestamp default now-27h # the first moment
-- param: to timestamp default now # the moment after the last
WITH /* windows of: quantity = $quantity */
SELECT sensor, time, value
FROM windows
ORDER BY sensor, time
