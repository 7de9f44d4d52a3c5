-- One value for each window of time of one sensor: by its kind the mean, the sum, the last value or
-- the mean direction. `time` is where the window starts. Readings of an interval belong to the window
-- in which it lies.
-- param: sensor sensor required # like landfalltjern/water_temperature
-- param: every duration default 1h # the length of a window, like 10min, 1h, 1d
-- param: from timestamp default now-7d # the first moment
-- param: to timestamp default now # the moment after the last
WITH /* windows of: sensor = $sensor */
SELECT sensor, time, low, high, count, value
FROM windows
ORDER BY time
