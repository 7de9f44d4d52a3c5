-- One value for each window of time of every sensor of one place, as `windows` says it.
-- param: site site required # like landfalltjern
-- param: every duration default 1h # the length of a window, like 10min, 1h, 1d
-- param: from timestamp default now-7d # the first moment
-- param: to timestamp default now # the moment after the last
WITH /* windows of: site = $site */
SELECT sensor, time, count, value
FROM windows
ORDER BY sensor, time
