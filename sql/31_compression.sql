-- Rows of more than 2 kB are compressed, which takes longer than all else about them; LZ4 takes a fraction of that. A server may be built
-- without it.
DO $$
BEGIN
  ALTER TABLE lead_audit.entry ALTER COLUMN row_values SET COMPRESSION lz4, ALTER COLUMN changed_values SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;
