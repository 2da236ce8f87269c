-- Holds the place of the catalogue's tables.
SELECT 1;
