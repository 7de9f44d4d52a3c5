-- The mean of each window of time of every sensor of one quantity: the curves of the front page.
-- param: quantity part default water_temperature # like water_temperature
-- param: every duration default 30min # the length of a window
-- param: from timestamp default now-27h # the first moment
-- param: to timestamp default now # the moment after the last
SELECT sensor, time_bucket($every, time) AS time, avg(value) AS value
FROM observations
WHERE quantity = $quantity AND time >= $from AND time < $to
GROUP BY sensor, time_bucket($every, time)
ORDER BY sensor, time
