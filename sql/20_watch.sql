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

-- The relations whose audit triggers belong to a watched table: itself and its partitions, as they were seen last. Oids mean
-- nothing in another cluster, so this is not dumped; the DDL guard fills it again from the triggers.
CREATE TABLE lead_audit.watched_relation (
  relation oid PRIMARY KEY,
  watch_id uuid NOT NULL,
  is_root boolean NOT NULL,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  soft_delete_attnum smallint
);
REVOKE ALL ON lead_audit.watched_relation FROM PUBLIC;

COMMENT ON TABLE lead_audit.watched_relation IS 'Internal: watched tables and their partitions by oid, so that a rename, a drop and a detached partition are noticed.';
COMMENT ON COLUMN lead_audit.watched_relation.relation IS 'Oid of the table or partition.';
COMMENT ON COLUMN lead_audit.watched_relation.watch_id IS 'The watched table it belongs to.';
COMMENT ON COLUMN lead_audit.watched_relation.is_root IS 'Whether it is that table itself, not one of its partitions.';
COMMENT ON COLUMN lead_audit.watched_relation.table_schema IS 'The schema in which it was seen last.';
COMMENT ON COLUMN lead_audit.watched_relation.table_name IS 'The name under which it was seen last.';
COMMENT ON COLUMN lead_audit.watched_relation.soft_delete_attnum IS 'Number of the soft-delete column, by which it is found when it is renamed.';
