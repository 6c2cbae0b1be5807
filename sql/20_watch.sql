-- This table has one row for each watched table. A watch id identifies a watched table, and is an
-- argument of the table's audit triggers. The oid of a table cannot identify the table, because
-- the oid changes in a dump and restore. The name cannot identify the table either, because the
-- owner can rename the table.
CREATE TABLE lead_audit.watch (
  watch_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  table_schema text NOT NULL,
  table_name text NOT NULL,
  soft_delete_column text,
  state text NOT NULL CONSTRAINT watch_state_check
    CHECK (state IN ('changing', 'on', 'disabled', 'off', 'dropped', 'merged')),
  enabled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  baseline_at timestamptz,
  replica boolean NOT NULL DEFAULT false
);
REVOKE ALL ON lead_audit.watch FROM PUBLIC;
CREATE INDEX watch_table_name_idx ON lead_audit.watch (table_name);
COMMENT ON INDEX lead_audit.watch_table_name_idx IS
  'Finds the watch id of a table that was watched before.';
SELECT pg_catalog.pg_extension_config_dump('lead_audit.watch', '');

COMMENT ON TABLE lead_audit.watch IS
  'The watch id of each table that is or was watched. Only enable(), disable() and the DDL guard '
  'change it.';
COMMENT ON COLUMN lead_audit.watch.watch_id IS
  'Identity of the table: the first argument of its audit triggers, and part of each entry.';
COMMENT ON COLUMN lead_audit.watch.table_schema IS 'Last known schema of the table.';
COMMENT ON COLUMN lead_audit.watch.table_name IS 'Last known name of the table.';
COMMENT ON COLUMN lead_audit.watch.soft_delete_column IS
  'Boolean column that turns true when a row is soft-deleted, or NULL.';
COMMENT ON COLUMN lead_audit.watch.state IS
  'on; disabled (somebody disabled or dropped an audit trigger); off (after disable()); dropped '
  '(the table is gone); merged (it became a partition of another watched table); changing (only '
  'during enable() and disable()).';
COMMENT ON COLUMN lead_audit.watch.enabled_at IS 'Time at which watching began.';
COMMENT ON COLUMN lead_audit.watch.ended_at IS 'Time at which watching ended, or NULL.';
COMMENT ON COLUMN lead_audit.watch.baseline_at IS
  'Time at which SNAPSHOT entries for the existing rows were written, or NULL.';
COMMENT ON COLUMN lead_audit.watch.replica IS
  'Whether all writes by logical replication or with session_replication_role = replica are '
  'recorded too.';

-- watched_relation has one row for each relation with audit triggers: each watched table, each of
-- its partitions and each of its child tables. The rows contain oids, which mean nothing in
-- another cluster, so a dump does not contain them. After a restore, the DDL guard makes the rows
-- again from the arguments of the audit triggers.
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
COMMENT ON INDEX lead_audit.watched_relation_watch_id_idx IS
  'Finds the relations of a watched table, and its root.';

COMMENT ON TABLE lead_audit.watched_relation IS
  'Internal: last known state of watched tables, their partitions and child tables. The DDL guard '
  'compares it with the catalog to notice a rename, a drop or a detached partition.';
COMMENT ON COLUMN lead_audit.watched_relation.relation IS
  'Oid of the table, partition or child table.';
COMMENT ON COLUMN lead_audit.watched_relation.watch_id IS 'Watched table that it belongs to.';
COMMENT ON COLUMN lead_audit.watched_relation.is_root IS
  'Whether it is the watched table itself, not a partition or child table.';
COMMENT ON COLUMN lead_audit.watched_relation.table_schema IS 'Last known schema.';
COMMENT ON COLUMN lead_audit.watched_relation.table_name IS 'Last known name.';
COMMENT ON COLUMN lead_audit.watched_relation.soft_delete_attnum IS
  'Number of the soft-delete column. It finds the column after a rename.';
COMMENT ON COLUMN lead_audit.watched_relation.is_complete IS
  'Whether all audit triggers existed and were enabled.';
COMMENT ON COLUMN lead_audit.watched_relation.shape IS
  'Digest of the columns, from shape_of(). It shows whether they have changed.';
COMMENT ON COLUMN lead_audit.watched_relation.key_attnums IS
  'Numbers of the primary key''s columns, ascending. Empty without a primary key.';
COMMENT ON COLUMN lead_audit.watched_relation.key_names IS 'Names of the same columns.';
COMMENT ON COLUMN lead_audit.watched_relation.key_types IS 'Types of the same columns.';
COMMENT ON COLUMN lead_audit.watched_relation.is_restored IS
  'Whether a restore created its triggers and may still create its primary key. Ends with the '
  'next change.';

-- The earlier watch ids of watched tables. history() also finds the entries that have one of these
-- watch ids.
CREATE TABLE lead_audit.earlier_identity (
  watch_id uuid NOT NULL,
  earlier_id uuid NOT NULL,
  until_entry bigint NOT NULL,
  PRIMARY KEY (watch_id, earlier_id, until_entry)
);
REVOKE ALL ON lead_audit.earlier_identity FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('lead_audit.earlier_identity', '');

COMMENT ON TABLE lead_audit.earlier_identity IS
  'Watch ids whose entries belong to the history of another watched table: of the table that a '
  'partition was detached from, or of a table that became a partition.';
COMMENT ON COLUMN lead_audit.earlier_identity.watch_id IS 'Watched table.';
COMMENT ON COLUMN lead_audit.earlier_identity.earlier_id IS
  'Watch id under which its rows were recorded before.';
COMMENT ON COLUMN lead_audit.earlier_identity.until_entry IS
  'Last entry under the earlier watch id.';

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

COMMENT ON TABLE lead_audit.former_key IS
  'Former primary keys of watched tables. With them, history() finds the entries that were '
  'written before a key changed.';
COMMENT ON COLUMN lead_audit.former_key.watch_id IS 'Watched table.';
COMMENT ON COLUMN lead_audit.former_key.until_entry IS 'Last entry under this key.';
COMMENT ON COLUMN lead_audit.former_key.column_names IS
  'Columns of the primary key, in the order of their numbers. Empty if there was none.';
COMMENT ON COLUMN lead_audit.former_key.column_types IS 'Types of the same columns.';
COMMENT ON COLUMN lead_audit.former_key.same_columns IS
  'Whether the next primary key has the same columns, renamed or with other types.';

-- This trigger function refuses writes to the tables of this file by roles that do not own them,
-- for example by a role with pg_write_all_data. Superusers can insert and update rows of these
-- tables, so that they can restore a dump.
CREATE FUNCTION lead_audit_internal.refuse_change_by_others() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP IN ('INSERT', 'UPDATE') OR TG_TABLE_NAME = 'watched_relation' AND TG_OP = 'DELETE' THEN
    IF pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
      RETURN NULL;
    END IF;
  END IF;
  RAISE EXCEPTION '% of % is not allowed: it belongs to the audit trail', TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Call lead_audit.enable() or lead_audit.disable() to change what is watched.';
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_change_by_others() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_change_by_others() IS
  'Trigger: refuses changes to the list of watched tables by roles with rights on all tables, '
  'such as members of pg_write_all_data. Error 42501.';

-- Only the library writes to the tables that have a trigger with this function. The function
-- refuses writes by roles that neither own the table nor are superusers, for example by a role
-- with pg_write_all_data.
CREATE FUNCTION lead_audit_internal.refuse_others() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
    RAISE EXCEPTION '% of % is not allowed: it belongs to the audit trail',
      TG_OP, TG_RELID::regclass
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'Only lead_audit writes to this table.';
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_others() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_others() IS
  'Trigger: refuses writes to the audit trail by roles with rights on all tables, such as members '
  'of pg_write_all_data. Error 42501.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watch
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.watch ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.watch IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';
CREATE TRIGGER own_changes_only
  BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watched_relation
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.watched_relation ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.watched_relation IS
  'Refuses TRUNCATE, and changes by others than lead_audit.';
CREATE TRIGGER own_changes_only
  BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.earlier_identity
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.earlier_identity ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.earlier_identity IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';
CREATE TRIGGER own_changes_only
  BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.former_key
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change_by_others();
ALTER TABLE lead_audit.former_key ENABLE ALWAYS TRIGGER own_changes_only;
COMMENT ON TRIGGER own_changes_only ON lead_audit.former_key IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';
