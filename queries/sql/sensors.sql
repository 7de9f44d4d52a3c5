-- The sensors, as the register describes them.
SELECT id AS sensor, site, quantity, name_nb, name_nn, name_en, unit, kind, "interval", low, high
FROM sensors
ORDER BY id
