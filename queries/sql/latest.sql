-- The newest observation of every sensor, and the newest word of it, whatever its quality.
-- `time`, `value` and `quality` are of the newest observation; null where there is none yet.
SELECT sensor, time, value, quality, heard_time, heard_quality, heard_cause,
       site, site_name, sensor_name, quantity, unit, kind, "interval"
FROM latest
ORDER BY site, sensor
