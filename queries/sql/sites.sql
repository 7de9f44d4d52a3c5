-- The places, as the register names them.
SELECT site, name_nb, name_nn, name_en, kind, latitude, longitude, official_ids
FROM sites
ORDER BY site
