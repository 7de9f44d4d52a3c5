-- One value for each window of time of one sensor: by its kind the mean, the sum, the last value or
-- the mean direction. `time` is where the window starts.
-- param: sensor sensor required # like landfalltjern/water_temperature
-- param: every duration default 1h # the length of a window, like 10min, 1h, 1d
-- param: from timestamp default now-7d # the first moment
-- param: to timestamp default now # the moment after the last
SELECT sensor, time_bucket($every, time) AS time,
       min(value) AS low,
       max(value) AS high,
       count(value) AS count,
       CASE max(kind)
         WHEN 'interval_sum' THEN sum(value)
         WHEN 'counter' THEN last_value(value ORDER BY time)
         WHEN 'state' THEN last_value(value ORDER BY time)
         WHEN 'angle' THEN
           CASE WHEN atan2(sum(sin(radians(value))), sum(cos(radians(value)))) < 0
                THEN degrees(atan2(sum(sin(radians(value))), sum(cos(radians(value))))) + 360
                ELSE degrees(atan2(sum(sin(radians(value))), sum(cos(radians(value)))))
           END
         ELSE avg(value)
       END AS value
FROM observations
WHERE sensor = $sensor AND time >= $from AND time < $to
GROUP BY sensor, time_bucket($every, time)
ORDER BY time
