-- Which tables are watched. A watched table is known by its watch_id, which its triggers carry as their argument: oids
-- do not survive dump and restore, names change.
CREATE TABLE lead_audit.watch (
  watch_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  table_schema text NOT NULL,
  table_name text NOT NULL,
  soft_delete_column text,
  state text NOT NULL CONSTRAINT watch_state_check CHECK (state IN ('changing', 'on', 'disabled', 'off', 'dropped', 'merged')),
  enabled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  baseline_at timestamptz,
  replica boolean NOT NULL DEFAULT false
);
REVOKE ALL ON lead_audit.watch FROM PUBLIC;
CREATE INDEX watch_table_name_idx ON lead_audit.watch (table_name);
COMMENT ON INDEX lead_audit.watch_table_name_idx IS 'Finds the identity of a table that was watched before.';
SELECT pg_catalog.pg_extension_config_dump('lead_audit.watch', '');

COMMENT ON TABLE lead_audit.watch IS 'The identity of each watched table. Changed by enable(), disable() and the DDL guard only.';
COMMENT ON COLUMN lead_audit.watch.watch_id IS 'The identity: the first argument of the table''s audit triggers, and in each of its entries.';
COMMENT ON COLUMN lead_audit.watch.table_schema IS 'The schema in which the table was seen last.';
COMMENT ON COLUMN lead_audit.watch.table_name IS 'The name under which the table was seen last.';
COMMENT ON COLUMN lead_audit.watch.soft_delete_column IS 'The boolean column whose turning true is a soft delete, or NULL.';
COMMENT ON COLUMN lead_audit.watch.state IS 'on; disabled (a trigger was switched off or dropped by hand); off (by disable()); dropped (the table is gone); merged (it became a partition of another watched table); changing (only within enable() and disable()).';
COMMENT ON COLUMN lead_audit.watch.enabled_at IS 'When watching began.';
COMMENT ON COLUMN lead_audit.watch.ended_at IS 'When watching ended, or NULL.';
COMMENT ON COLUMN lead_audit.watch.baseline_at IS 'When the rows already there were written as SNAPSHOT entries, or NULL.';
COMMENT ON COLUMN lead_audit.watch.replica IS 'Whether rows are recorded, too, that logical replication or session_replication_role = replica brings.';

-- The relations whose audit triggers belong to a watched table: itself, its partitions and its child tables, as they were seen
-- last. Oids mean nothing in another cluster, so this is not dumped; the DDL guard fills it again from the triggers.
CREATE TABLE lead_audit.watched_relation (
  relation oid PRIMARY KEY,
  watch_id uuid NOT NULL,
  is_root boolean NOT NULL,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  soft_delete_attnum smallint,
  is_complete boolean NOT NULL DEFAULT false,
  shape bytea,
  key_attnums smallint[],
  key_names text[],
  key_types text[],
  is_restored boolean NOT NULL DEFAULT false
);
REVOKE ALL ON lead_audit.watched_relation FROM PUBLIC;
CREATE INDEX watched_relation_watch_id_idx ON lead_audit.watched_relation (watch_id, is_root);
COMMENT ON INDEX lead_audit.watched_relation_watch_id_idx IS 'Finds the relations of a watched table, and which is the table itself.';

COMMENT ON TABLE lead_audit.watched_relation IS 'Internal: watched tables, their partitions and child tables by oid, so that a rename, a drop and a detached partition are noticed.';
COMMENT ON COLUMN lead_audit.watched_relation.relation IS 'Oid of the table or partition.';
COMMENT ON COLUMN lead_audit.watched_relation.watch_id IS 'The watched table it belongs to.';
COMMENT ON COLUMN lead_audit.watched_relation.is_root IS 'Whether it is that table itself, not one of its partitions or child tables.';
COMMENT ON COLUMN lead_audit.watched_relation.table_schema IS 'The schema in which it was seen last.';
COMMENT ON COLUMN lead_audit.watched_relation.table_name IS 'The name under which it was seen last.';
COMMENT ON COLUMN lead_audit.watched_relation.soft_delete_attnum IS 'Number of the soft-delete column, by which it is found when it is renamed.';
COMMENT ON COLUMN lead_audit.watched_relation.is_complete IS 'Whether its audit triggers were all there and on.';
COMMENT ON COLUMN lead_audit.watched_relation.shape IS 'Digest of its columns (shape_of()), by which a change of them is noticed.';
COMMENT ON COLUMN lead_audit.watched_relation.key_attnums IS 'Numbers of the primary key''s columns, ascending; empty without a primary key.';
COMMENT ON COLUMN lead_audit.watched_relation.key_names IS 'Names of the same columns.';
COMMENT ON COLUMN lead_audit.watched_relation.key_types IS 'Types of the same columns.';
COMMENT ON COLUMN lead_audit.watched_relation.is_restored IS 'Whether a restore brought its triggers, and may yet bring its primary key; until the next change.';

-- What history() needs to find entries from before a change: under which identity, and under which primary key.
CREATE TABLE lead_audit.earlier_identity (
  watch_id uuid NOT NULL,
  earlier_id uuid NOT NULL,
  until_entry bigint NOT NULL,
  PRIMARY KEY (watch_id, earlier_id, until_entry)
);
REVOKE ALL ON lead_audit.earlier_identity FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.earlier_identity', '');

COMMENT ON TABLE lead_audit.earlier_identity IS 'Identities whose entries belong to the history of another: of the table that a partition was detached from, of a table that became a partition.';
COMMENT ON COLUMN lead_audit.earlier_identity.watch_id IS 'The watched table.';
COMMENT ON COLUMN lead_audit.earlier_identity.earlier_id IS 'The identity under which its rows were recorded before.';
COMMENT ON COLUMN lead_audit.earlier_identity.until_entry IS 'The last entry for which that holds.';

CREATE TABLE lead_audit.former_key (
  watch_id uuid NOT NULL,
  until_entry bigint NOT NULL,
  column_names text[] NOT NULL,
  column_types text[] NOT NULL,
  same_columns boolean NOT NULL,
  PRIMARY KEY (watch_id, until_entry)
);
REVOKE ALL ON lead_audit.former_key FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.former_key', '');

COMMENT ON TABLE lead_audit.former_key IS 'Primary keys that watched tables had before: history() finds the entries that were written under them.';
COMMENT ON COLUMN lead_audit.former_key.watch_id IS 'The watched table.';
COMMENT ON COLUMN lead_audit.former_key.until_entry IS 'The last entry for which that holds.';
COMMENT ON COLUMN lead_audit.former_key.column_names IS 'The columns of the primary key, by their numbers; empty where there was none.';
COMMENT ON COLUMN lead_audit.former_key.column_types IS 'Their types.';
COMMENT ON COLUMN lead_audit.former_key.same_columns IS 'Whether the primary key that came next has the same columns, renamed or of another type.';

-- pg_write_all_data reaches these tables: nobody but their owner (and superusers, for a restore) gets further than this.
CREATE FUNCTION lead_audit_internal.refuse_change_by_others() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP IN ('INSERT', 'UPDATE') OR TG_TABLE_NAME = 'watched_relation' AND TG_OP = 'DELETE' THEN
    IF pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
      RETURN NULL;
    END IF;
  END IF;
  RAISE EXCEPTION '% of % is not allowed: it belongs to the audit trail', TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'lead_audit.enable() and lead_audit.disable() change what is watched.';
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_change_by_others() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_change_by_others() IS 'Keeps what is known of watched tables from being changed by roles that were given rights on everything, as by pg_write_all_data. Error 42501.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watch
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.watch ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.watch IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';
CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watched_relation
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.watched_relation ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.watched_relation IS 'Refuses changes by others than lead_audit, and TRUNCATE to everybody.';
CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.earlier_identity
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.earlier_identity ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.earlier_identity IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';
CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.former_key
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.former_key ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.former_key IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';
