-- Windows of time of sensors: one value for each, by the sensor's kind. What `windows`, `curves` and `place` share: `{whose}` is whose
-- readings, by a condition on `observations`; each of them takes `every`, `from` and `to`.
placed AS (
  -- A reading of an interval carries the interval's end: one at a border belongs to the window that ends there.
  SELECT sensor, kind, unit, time, value, CASE
           WHEN kind IN ('interval_mean', 'interval_sum') THEN time - INTERVAL '1 microsecond'
           ELSE time
         END AS moment
  FROM observations
  WHERE {whose} AND time >= $from AND time <= $to
), radian AS (
  SELECT *, CASE WHEN kind = 'angle' AND unit = 'rad' THEN value WHEN kind = 'angle' THEN radians(value) END AS angle
  FROM placed
  WHERE moment >= $from AND moment < $to
), summed AS (
  SELECT sensor, time_bucket($every, moment) AS begins, max(kind) AS kind, max(unit) AS unit,
         count(value) AS count, sum(value) AS sum, min(value) AS min, max(value) AS max,
         last_value(value ORDER BY time) AS last, sum(sin(angle)) AS sine, sum(cos(angle)) AS cosine
  FROM radian
  GROUP BY sensor, time_bucket($every, moment)
), turned AS (
  -- Directions that cancel each other out have no mean.
  SELECT *, CASE WHEN abs(sine) + abs(cosine) > 1e-9 * count THEN atan2(sine, cosine) END AS direction
  FROM summed
), windows AS (
  SELECT sensor, begins AS time,
         CASE WHEN kind NOT IN ('angle', 'state') THEN min END AS low,
         CASE WHEN kind NOT IN ('angle', 'state') THEN max END AS high,
         count,
         CASE
           WHEN kind = 'interval_sum' THEN sum
           WHEN kind IN ('counter', 'state') THEN last
           WHEN kind = 'angle' AND unit = 'rad' AND direction < 0 THEN (direction + 2 * pi()) % (2 * pi())
           WHEN kind = 'angle' AND unit = 'rad' THEN direction
           WHEN kind = 'angle' AND direction < 0 THEN (degrees(direction) + 360) % 360
           WHEN kind = 'angle' THEN degrees(direction)
           ELSE sum / count
         END AS value
  FROM turned
)
