-- Which tables are watched. A watched table is known by its watch_id, which its triggers carry as their argument: oids
-- do not survive dump and restore, names change.
CREATE TABLE lead_audit.watch (
  watch_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  table_schema text NOT NULL,
  table_name text NOT NULL,
  soft_delete_column text,
  state text NOT NULL CHECK (state IN ('changing', 'on', 'disabled', 'off', 'dropped')),
  enabled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  baseline_at timestamptz
);
REVOKE ALL ON lead_audit.watch FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.watch', '');

COMMENT ON TABLE lead_audit.watch IS 'The identity of each watched table. Changed by enable(), disable() and the DDL guard only.';
COMMENT ON COLUMN lead_audit.watch.watch_id IS 'The identity: the first argument of the table''s audit triggers, and in each of its entries.';
COMMENT ON COLUMN lead_audit.watch.table_schema IS 'The schema in which the table was seen last.';
COMMENT ON COLUMN lead_audit.watch.table_name IS 'The name under which the table was seen last.';
COMMENT ON COLUMN lead_audit.watch.soft_delete_column IS 'The boolean column whose turning true is a soft delete, or NULL.';
COMMENT ON COLUMN lead_audit.watch.state IS 'on; disabled (a trigger was switched off or dropped by hand); off (by disable()); dropped (the table is gone); changing (only within enable() and disable()).';
COMMENT ON COLUMN lead_audit.watch.enabled_at IS 'When watching began.';
COMMENT ON COLUMN lead_audit.watch.ended_at IS 'When watching ended, or NULL.';
COMMENT ON COLUMN lead_audit.watch.baseline_at IS 'When the rows already there were written as SNAPSHOT entries, or NULL.';
