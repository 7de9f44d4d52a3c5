-- The observations of one sensor, each as it was measured, the oldest first.
-- param: sensor sensor required # like landfalltjern/water_temperature
-- param: from timestamp default now-24h # the first moment
-- param: to timestamp default now # the moment after the last
-- param: limit integer default 20000 min 1 max 100000 # so many, counted from the newest
SELECT * FROM (
  SELECT sensor, time, value, quality, unit, local_time
  FROM observations
  WHERE sensor = $sensor AND time >= $from AND time < $to
  ORDER BY time DESC
  LIMIT $limit
) AS newest
ORDER BY time
