-- From 1.0 to 1.1. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- The hand-written part of the update from version 1.0 to 1.1. This part contains the statements
-- that scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Raises an error if this session has loaded an earlier library. At this point of an update, the
-- catalog already contains the new version of the extension.
SELECT lead_audit.require_library();

-- Without its event triggers, the DDL guard is off while the update replaces its functions. The
-- generated part of the update creates the event triggers again.
DROP EVENT TRIGGER lead_audit_ddl;
DROP EVENT TRIGGER lead_audit_start;
DROP EVENT TRIGGER lead_audit_drop;

ALTER TABLE lead_audit.checkpoint ADD COLUMN log_id uuid;
ALTER TABLE lead_audit.tree ADD COLUMN origin text, ADD COLUMN verifier_key text;

-- Drops functions of version 1.0 whose arguments, results or names are different in version 1.1.
DROP FUNCTION lead_audit.merge_watch(uuid, uuid);
DROP FUNCTION lead_audit.follow_joining(lead_audit.watch, oid, boolean);
DROP FUNCTION lead_audit.follow_soft_delete_column(uuid);
DROP FUNCTION lead_audit.follow_parting(lead_audit.watch, oid);
DROP FUNCTION lead_audit.follow_reshaping(lead_audit.watch, oid[], oid[], boolean);
DROP FUNCTION lead_audit.follow_ddl(boolean, text[]);
DROP FUNCTION lead_audit.primary_key_of(oid);

-- Version 1.0 had its internal functions in the schema lead_audit. Version 1.1 has them in the
-- schema lead_audit_internal.
CREATE SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_change_by_others() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_change() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.guard_tree() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.write_baseline(regclass, uuid, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.write_ddl(uuid, oid, text, text, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.is_audit_trigger_name(name) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.is_complete(oid, uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.members_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.ancestors_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.shape_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_of(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watched_above(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_triggers(regclass, uuid, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_member_triggers(oid, uuid, text, boolean)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_trigger(regclass, text, text, text, text, text[], uuid)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.drop_triggers(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_relations(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.last_entry() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.warn_of_earlier_triggers(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.soft_delete_column_of(regclass, name) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.require_library() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_table(regclass, name, boolean, boolean)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.may_disable(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.relations_of_command(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.affected_relations(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_ddl(oid, boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_id_order() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_state(lead_audit.watch, text, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.command_effects() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_ddl(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_drop() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.before_attach(oid, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.guard_ddl() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.own_queue() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_columns(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, smallint[], text[], text[])
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.value_as(regclass, text, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.identities_of(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.former_spellings(regclass, text, uuid, bigint)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.entries_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.has_values(jsonb, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.summary_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_leads() SET SCHEMA lead_audit_internal;

COMMENT ON SCHEMA lead_audit IS
  'Audit trail of the watched tables. PUBLIC has no rights here. Writes to watched tables are '
  'recorded all the same.';

REVOKE ALL ON SCHEMA lead_audit_internal FROM PUBLIC;

COMMENT ON SCHEMA lead_audit_internal IS
  'Functions that only lead_audit calls. They can change with any version. PUBLIC has no rights '
  'here.';

CREATE INDEX watch_table_name_idx ON lead_audit.watch (table_name);

COMMENT ON INDEX lead_audit.watch_table_name_idx IS
  'Finds the watch id of a table that was watched before.';

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

COMMENT ON COLUMN lead_audit.watched_relation.is_restored IS
  'Whether a restore created its triggers and may still create its primary key. Ends with the '
  'next change.';

COMMENT ON TABLE lead_audit.earlier_identity IS
  'Watch ids whose entries belong to the history of another watched table: of the table that a '
  'partition was detached from, or of a table that became a partition.';

COMMENT ON COLUMN lead_audit.earlier_identity.watch_id IS 'Watched table.';

COMMENT ON COLUMN lead_audit.earlier_identity.earlier_id IS
  'Watch id under which its rows were recorded before.';

COMMENT ON COLUMN lead_audit.earlier_identity.until_entry IS
  'Last entry under the earlier watch id.';

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

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_change_by_others() RETURNS trigger
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

COMMENT ON FUNCTION lead_audit_internal.refuse_change_by_others() IS
  'Trigger: refuses changes to the list of watched tables by roles with rights on all tables, '
  'such as members of pg_write_all_data. Error 42501.';

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

COMMENT ON TRIGGER own_changes_only ON lead_audit.watch IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';

COMMENT ON TRIGGER own_changes_only ON lead_audit.watched_relation IS
  'Refuses TRUNCATE, and changes by others than lead_audit.';

COMMENT ON TRIGGER own_changes_only ON lead_audit.earlier_identity IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';

COMMENT ON TRIGGER own_changes_only ON lead_audit.former_key IS
  'Refuses DELETE and TRUNCATE, and changes by others than lead_audit.';

COMMENT ON INDEX lead_audit.entry_key_hash_idx IS 'Finds the entries of a row, for history().';

COMMENT ON INDEX lead_audit.entry_previous_key_hash_idx IS
  'Finds the entries in which a row lost this key, for history().';

COMMENT ON SEQUENCE lead_audit.entry_id_seq IS
  'Ids of entries. A transaction that rolls back leaves its ids unused.';

COMMENT ON TABLE lead_audit.entry IS
  'The audit trail as it is stored and checksummed (docs/FORMAT.md). Read it through the view '
  'lead_audit.log.';

COMMENT ON COLUMN lead_audit.entry.id IS
  'Order of the events: within the history of a row, a later event has a higher id.';

COMMENT ON COLUMN lead_audit.entry.txid IS
  'Top-level transaction, as returned by pg_current_xact_id(). For information only: ids of '
  'transactions do not survive dump and restore.';

COMMENT ON COLUMN lead_audit.entry.occurred_at IS
  'Wall-clock time of the event, in microseconds. Not the start of the transaction.';

COMMENT ON COLUMN lead_audit.entry.key_hash IS
  'First 8 bytes of SHA-256(watch_id, row_key). history() finds a row by it.';

COMMENT ON COLUMN lead_audit.entry.previous_key_hash IS
  'Key hash of the former key, for an UPDATE that changed the primary key. Otherwise NULL.';

COMMENT ON COLUMN lead_audit.entry.relation IS
  'Oid of the table at the time of the event. For information only.';

COMMENT ON COLUMN lead_audit.entry.backend_pid IS 'Process id of the server process.';

COMMENT ON COLUMN lead_audit.entry.checksum IS
  'SHA-256 over the canonical JSON of all other columns of lead_audit.entry that are not NULL.';

COMMENT ON COLUMN lead_audit.entry.operation IS
  'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that existed when watching began), DDL or '
  'KEY (the log has a new key or origin). Failures can also have MERGE, COPY, COMMIT (a deferred '
  'check that covers several operations) and ROLLBACK.';

COMMENT ON COLUMN lead_audit.entry.outcome IS
  'ok, failed, rolled_back (what a rolled-back transaction had written) or gap (the event took '
  'place, but its entry could not be written).';

COMMENT ON COLUMN lead_audit.entry.table_schema IS 'Schema of the table at the time of the event.';

COMMENT ON COLUMN lead_audit.entry.table_name IS 'Name of the table at the time of the event.';

COMMENT ON COLUMN lead_audit.entry.soft_delete IS
  'deleted: the soft-delete column turned true. restored: it no longer is true. Otherwise NULL.';

COMMENT ON COLUMN lead_audit.entry.row_key IS
  'Primary key columns and their values after the event. NULL without a primary key.';

COMMENT ON COLUMN lead_audit.entry.row_values IS
  'Complete row in canonical JSON, byte for byte as it was hashed: the new row of an INSERT or '
  'SNAPSHOT, the old row of an UPDATE or DELETE.';

COMMENT ON COLUMN lead_audit.entry.changed_values IS
  'New values of the columns that an UPDATE changed.';

COMMENT ON COLUMN lead_audit.entry.details IS
  'Further facts, depending on the event. TRUNCATE: {"row_count": n}. UPDATE that moved the row '
  'to another partition: {"moved_from": {"table_name": ..., "table_schema": ...}}. DDL whose '
  'command is not the client''s text: {"executed": ...}. DDL whose text was cut: {"command": ..., '
  '"statement_length": n}. KEY: {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": '
  '...}. Failure: constraint, column, parameters and omitted_columns. Rolled-back transaction: '
  '{"written": [...], "written_omitted": n}.';

COMMENT ON COLUMN lead_audit.entry.user_id IS
  'Setting lead_audit.user_id: the user, according to the application.';

COMMENT ON COLUMN lead_audit.entry.user_ip IS
  'Setting lead_audit.user_ip: the user''s address, according to the application.';

COMMENT ON COLUMN lead_audit.entry.user_agent IS
  'Setting lead_audit.user_agent: the user''s browser or program, according to the application.';

COMMENT ON COLUMN lead_audit.entry.request_id IS
  'Setting lead_audit.request_id: the request, according to the application.';

COMMENT ON COLUMN lead_audit.entry.db_session_user IS
  'session_user: the role that logged in to the database.';

COMMENT ON COLUMN lead_audit.entry.client_addr IS
  'Network address of the client, according to the server. NULL for a Unix socket.';

COMMENT ON COLUMN lead_audit.entry.application_name IS 'Setting application_name.';

COMMENT ON COLUMN lead_audit.entry.error_code IS 'SQLSTATE of the failure.';

COMMENT ON COLUMN lead_audit.entry.error_message IS 'Message of the failure.';

COMMENT ON COLUMN lead_audit.entry.error_detail IS 'DETAIL of the failure.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% of % is not allowed: the audit trail is append-only',
    TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Only lead_audit writes entries, and nobody changes them.';
END
$$;

COMMENT ON FUNCTION lead_audit_internal.refuse_change() IS
  'Trigger: refuses changes of entries by any ordinary path, by their owner too. Error 42501.';

COMMENT ON SEQUENCE lead_audit.unwritten_seq IS
  'Number of entries that could neither be written nor be counted in lead_audit.unwritten.';

CREATE TABLE lead_audit.unwritten (entries bigint NOT NULL);

REVOKE ALL ON lead_audit.unwritten FROM PUBLIC;

COMMENT ON TABLE lead_audit.unwritten IS
  'Number of entries that each transaction could not write (lead_audit.on_error = warn). '
  'lead_audit.stats shows the sum.';

COMMENT ON COLUMN lead_audit.unwritten.entries IS
  'Number of entries that one committed transaction lacks.';

CREATE TRIGGER own_writes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
  ON lead_audit.unwritten
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.unwritten ENABLE ALWAYS TRIGGER own_writes_only;

COMMENT ON TRIGGER own_writes_only ON lead_audit.unwritten IS
  'Refuses writes by others than lead_audit.';

COMMENT ON TABLE lead_audit.checkpoint IS
  'Size and root of the tree at each sealing, with the time. The entries that one checkpoint adds '
  'are in the tree in ascending order of their ids.';

COMMENT ON COLUMN lead_audit.checkpoint.tree_size IS 'Number of leaves in the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.sealed_at IS
  'Wall-clock time of the sealing. For information only: neither root nor note contains it.';

COMMENT ON COLUMN lead_audit.checkpoint.root IS 'Root of the tree (RFC 6962, section 2.1).';

COMMENT ON COLUMN lead_audit.checkpoint.entry_ids IS
  'Ids of the entries that this checkpoint added to the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.note IS
  'The published C2SP tlog-checkpoint: a signed note or, without lead_audit.signing_key_file, the '
  'unsigned text.';

COMMENT ON COLUMN lead_audit.checkpoint.log_id IS
  'Log id at the time, from lead_audit.tree. NULL if version 1.0 wrote the checkpoint.';

COMMENT ON TABLE lead_audit.leaf_range IS 'Internal: leaves of the tree by ranges of entry ids.';

COMMENT ON COLUMN lead_audit.leaf_range.first_id IS 'First id of the range.';

COMMENT ON COLUMN lead_audit.leaf_range.last_id IS 'Last id of the range. The range has no holes.';

COMMENT ON COLUMN lead_audit.leaf_range.first_leaf IS
  'Index of the leaf of first_id, from 0. The leaves of the other ids follow.';

COMMENT ON TABLE lead_audit.tree_tile IS
  'Full tiles of the tree (C2SP tlog-tiles, height 8), with 256 hashes of 32 bytes each.';

COMMENT ON COLUMN lead_audit.tree_tile.index IS 'Position of the tile in its level, from 0.';

COMMENT ON COLUMN lead_audit.tree_tile.level IS
  '0: leaf hashes. n + 1: roots of the full tiles of level n.';

COMMENT ON COLUMN lead_audit.tree_tile.hashes IS 'Concatenated hashes.';

COMMENT ON TABLE lead_audit.tree_edge IS 'Last tile of each level, with fewer than 256 hashes.';

COMMENT ON COLUMN lead_audit.tree_edge.index IS 'Position of the tile in its level, from 0.';

COMMENT ON COLUMN lead_audit.tree_edge.level IS 'Same levels as in tree_tile.';

COMMENT ON COLUMN lead_audit.tree_edge.hashes IS 'Concatenated hashes.';

COMMENT ON TABLE lead_audit.tree IS
  'Log id and state of sealing. The row with the largest tree counts, and among equals the '
  'oldest.';

COMMENT ON COLUMN lead_audit.tree.created_at IS 'Time at which the row was created.';

COMMENT ON COLUMN lead_audit.tree.tree_size IS 'Number of leaves in the tree.';

COMMENT ON COLUMN lead_audit.tree.looked_to IS
  'Highest id that sealing has looked at. Each id up to it is in the tree, is an open id, or '
  'belongs to a transaction that rolled back.';

COMMENT ON COLUMN lead_audit.tree.awaits_restore IS
  'Whether a restore ran CREATE EXTENSION and will load the tree. Sealing waits until the tree is '
  'there, or until a new entry shows that no tree will come.';

COMMENT ON COLUMN lead_audit.tree.waits_for IS
  'Transactions. When one of them ends, sealing looks at the open ids again.';

COMMENT ON COLUMN lead_audit.tree.home IS
  'Where transaction ids are valid: system identifier and database oid, separated by a slash.';

COMMENT ON COLUMN lead_audit.tree.origin IS
  'Origin of the newest checkpoint. NULL before the first.';

COMMENT ON COLUMN lead_audit.tree.verifier_key IS
  'Public key that belongs to the signature of the newest checkpoint. NULL if it is not signed.';

COMMENT ON COLUMN lead_audit.tree.publishing_errors IS
  'Number of failed attempts to publish a checkpoint.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error_at IS 'Time of the last failed attempt.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error IS 'Message of the last failed attempt.';

COMMENT ON INDEX lead_audit.open_gap_in_progress_idx IS
  'Finds the open ids that a transaction may own, when it has ended.';

COMMENT ON TABLE lead_audit.open_gap IS
  'Internal: open ids. They are below looked_to and had no visible entry when sealing looked, but '
  'their transaction may still commit.';

COMMENT ON COLUMN lead_audit.open_gap.first_id IS 'Lowest of the ids when sealing first saw them.';

COMMENT ON COLUMN lead_audit.open_gap.seen_at IS 'Time at which sealing first saw them.';

COMMENT ON COLUMN lead_audit.open_gap.ids IS 'The open ids.';

COMMENT ON COLUMN lead_audit.open_gap.in_progress IS
  'Transactions that may own the ids: in progress when sealing first saw the ids, and still in '
  'progress when it last looked.';

CREATE TABLE lead_audit.inserted_entry (
  id bigint NOT NULL PRIMARY KEY,
  found_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

REVOKE ALL ON lead_audit.inserted_entry FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.inserted_entry', '');

COMMENT ON TABLE lead_audit.inserted_entry IS
  'Internal: ids of entries that existed before the sequence gave out their ids. Somebody '
  'inserted them by hand, so they are never sealed.';

COMMENT ON COLUMN lead_audit.inserted_entry.id IS 'Id of the entry.';

COMMENT ON COLUMN lead_audit.inserted_entry.found_at IS 'Time at which the entry was found.';

COMMENT ON FUNCTION lead_audit_internal.guard_tree() IS
  'Trigger: only sealing may change the state of the tree. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.inserted_entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();

ALTER TABLE lead_audit.inserted_entry ENABLE ALWAYS TRIGGER append_only;

COMMENT ON TRIGGER append_only ON lead_audit.inserted_entry IS
  'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree_edge IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.open_gap IS
  'Refuses UPDATE, DELETE and TRUNCATE, except by sealing.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.checkpoint ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.checkpoint IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.leaf_range
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.leaf_range ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.leaf_range IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree_tile
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.tree_tile ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree_tile IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree_edge
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.tree_edge ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree_edge IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.tree
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.tree ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.tree IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.open_gap
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.open_gap ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.open_gap IS
  'Refuses INSERT by others than lead_audit.';

CREATE TRIGGER own_inserts_only BEFORE INSERT ON lead_audit.inserted_entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.inserted_entry ENABLE ALWAYS TRIGGER own_inserts_only;

COMMENT ON TRIGGER own_inserts_only ON lead_audit.inserted_entry IS
  'Refuses INSERT by others than lead_audit.';

CREATE FUNCTION lead_audit_internal.as_jsonb(value json) RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_as_jsonb';

CREATE FUNCTION lead_audit_internal.new_values_of(row_values json, changed_values json)
  RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_new_values_of';

CREATE FUNCTION lead_audit_internal.diff_of(row_values json, changed_values json) RETURNS jsonb
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lead_audit_diff_of';

COMMENT ON FUNCTION lead_audit_internal.as_jsonb(json) IS
  'Returns the value as jsonb. NULL if it is too large or nested too deeply for that.';

COMMENT ON FUNCTION lead_audit_internal.new_values_of(json, json) IS
  'Returns the row after an UPDATE, or NULL if it is too large or nested too deeply.';

COMMENT ON FUNCTION lead_audit_internal.diff_of(json, json) IS
  'Returns {"column": {"old": ..., "new": ...}} for each changed value, or NULL if that is too '
  'large or nested too deeply.';

CREATE OR REPLACE VIEW lead_audit.log AS
SELECT e.id, e.occurred_at, e.txid, e.table_schema, e.table_name, e.relation, e.operation,
       e.outcome,
       CASE WHEN pg_catalog.octet_length(e.row_key::text) < 1000 THEN e.row_key::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_key) END AS row_key,
       CASE WHEN e.operation NOT IN ('UPDATE', 'DELETE') THEN NULL
            WHEN pg_catalog.octet_length(e.row_values::text) < 1000 THEN e.row_values::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_values) END AS old_values,
       CASE WHEN e.operation = 'DELETE' THEN NULL
            WHEN e.operation = 'UPDATE' THEN
              CASE WHEN pg_catalog.octet_length(e.row_values::text)
                        + pg_catalog.octet_length(e.changed_values::text) < 1000
                THEN e.row_values::jsonb || e.changed_values::jsonb
                ELSE lead_audit_internal.new_values_of(e.row_values, e.changed_values) END
            WHEN pg_catalog.octet_length(e.row_values::text) < 1000 THEN e.row_values::jsonb
            ELSE lead_audit_internal.as_jsonb(e.row_values) END AS new_values,
       CASE WHEN e.operation = 'UPDATE' THEN
         lead_audit_internal.diff_of(e.row_values, e.changed_values) END AS diff,
       e.soft_delete, e.user_id, e.user_ip, e.user_agent, e.request_id, e.db_session_user,
       e.db_current_user, e.client_addr, e.application_name, e.backend_pid, e.error_code,
       e.error_message, e.error_detail, e.statement, e.checksum, e.details
FROM lead_audit.entry e;

COMMENT ON VIEW lead_audit.log IS
  'The audit trail: one row for each event, with complete old and new values and their diff.';

COMMENT ON COLUMN lead_audit.log.id IS
  'Order of the events: within the history of a row, a later event has a higher id.';

COMMENT ON COLUMN lead_audit.log.occurred_at IS
  'Wall-clock time of the event, in microseconds. Not the start of the transaction.';

COMMENT ON COLUMN lead_audit.log.txid IS
  'Top-level transaction, as returned by pg_current_xact_id(). For information only: ids of '
  'transactions do not survive dump and restore.';

COMMENT ON COLUMN lead_audit.log.table_schema IS 'Schema of the table at the time of the event.';

COMMENT ON COLUMN lead_audit.log.table_name IS 'Name of the table at the time of the event.';

COMMENT ON COLUMN lead_audit.log.relation IS
  'Oid of the table at the time of the event. For information only.';

COMMENT ON COLUMN lead_audit.log.operation IS
  'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that existed when watching began), DDL or '
  'KEY (the log has a new key or origin). Failures can also have MERGE, COPY, COMMIT (a deferred '
  'check that covers several operations) and ROLLBACK.';

COMMENT ON COLUMN lead_audit.log.outcome IS
  'ok, failed, rolled_back (what a rolled-back transaction had written) or gap (the event took '
  'place, but its entry could not be written).';

COMMENT ON COLUMN lead_audit.log.row_key IS
  'Primary key columns and their values after the event. NULL without a primary key.';

COMMENT ON COLUMN lead_audit.log.old_values IS
  'Complete row before an UPDATE or DELETE. NULL if jsonb cannot hold it.';

COMMENT ON COLUMN lead_audit.log.new_values IS
  'Complete row after an INSERT or UPDATE, or as a SNAPSHOT found it. NULL if jsonb '
  'cannot hold it.';

COMMENT ON COLUMN lead_audit.log.diff IS
  'For an UPDATE: {"column": {"old": ..., "new": ...}} for each column that changed. NULL if '
  'jsonb cannot hold it.';

COMMENT ON COLUMN lead_audit.log.soft_delete IS
  'deleted: the soft-delete column turned true. restored: it no longer is true. Otherwise NULL.';

COMMENT ON COLUMN lead_audit.log.user_id IS
  'Setting lead_audit.user_id: the user, according to the application.';

COMMENT ON COLUMN lead_audit.log.user_ip IS
  'Setting lead_audit.user_ip: the user''s address, according to the application.';

COMMENT ON COLUMN lead_audit.log.user_agent IS
  'Setting lead_audit.user_agent: the user''s browser or program, according to the application.';

COMMENT ON COLUMN lead_audit.log.request_id IS
  'Setting lead_audit.request_id: the request, according to the application.';

COMMENT ON COLUMN lead_audit.log.db_session_user IS
  'session_user: the role that logged in to the database.';

COMMENT ON COLUMN lead_audit.log.db_current_user IS 'current_user of the statement.';

COMMENT ON COLUMN lead_audit.log.client_addr IS
  'Network address of the client, according to the server. NULL for a Unix socket.';

COMMENT ON COLUMN lead_audit.log.application_name IS 'Setting application_name.';

COMMENT ON COLUMN lead_audit.log.backend_pid IS 'Process id of the server process.';

COMMENT ON COLUMN lead_audit.log.error_code IS 'SQLSTATE of the failure.';

COMMENT ON COLUMN lead_audit.log.error_message IS 'Message of the failure.';

COMMENT ON COLUMN lead_audit.log.error_detail IS 'DETAIL of the failure.';

COMMENT ON COLUMN lead_audit.log.statement IS 'Text of the statement, for DDL and failures.';

COMMENT ON COLUMN lead_audit.log.checksum IS
  'SHA-256 over the canonical JSON of all other columns of lead_audit.entry that are not NULL.';

COMMENT ON COLUMN lead_audit.log.details IS
  'Further facts, depending on the event. TRUNCATE: {"row_count": n}. UPDATE that moved the row '
  'to another partition: {"moved_from": {"table_name": ..., "table_schema": ...}}. DDL whose '
  'command is not the client''s text: {"executed": ...}. DDL whose text was cut: {"command": ..., '
  '"statement_length": n}. KEY: {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": '
  '...}. Failure: constraint, column, parameters and omitted_columns. Rolled-back transaction: '
  '{"written": [...], "written_omitted": n}.';

COMMENT ON FUNCTION lead_audit.capture() IS
  'Row trigger of a watched table. Arguments: the watch id, the name of the soft-delete column or '
  'an empty string, and origin_only unless the table was enabled with replica.';

COMMENT ON FUNCTION lead_audit.capture_truncate() IS
  'BEFORE TRUNCATE trigger of a watched table: counts the rows, and writes the entry when the '
  'table is truncated, before any AFTER TRUNCATE trigger. Arguments: the watch id, and '
  'origin_only unless the table was enabled with replica.';

CREATE OR REPLACE FUNCTION lead_audit_internal.write_baseline(
  relation regclass, watch_id uuid, soft_delete_column text) RETURNS bigint
  LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'write_baseline_wrapper';

COMMENT ON FUNCTION lead_audit_internal.write_baseline(regclass, uuid, text) IS
  'Writes one SNAPSHOT entry for each row of a table. Returns the number of rows.';

CREATE OR REPLACE FUNCTION lead_audit_internal.write_ddl(
  watch_id uuid, relation oid, table_schema text, table_name text, statement text) RETURNS void
  LANGUAGE c AS 'MODULE_PATHNAME', 'write_ddl_wrapper';

COMMENT ON FUNCTION lead_audit_internal.write_ddl(uuid, oid, text, text, text) IS
  'Writes one DDL entry.';

CREATE FUNCTION lead_audit_internal.record_command(
  watch_id uuid, relation oid, table_schema text, table_name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.write_ddl($1, $2, $3, $4, current_query())
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.record_command(uuid, oid, text, text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.record_command(uuid, oid, text, text) IS
  'Writes one DDL entry with the text of the current command.';

CREATE OR REPLACE VIEW lead_audit.trigger_kind (name, type, is_row) AS
VALUES ('00_lead_audit_row'::name, 29::smallint, true),
       ('00_lead_audit_truncate'::name, 34::smallint, false),
       ('00_lead_audit_row_before'::name, 29::smallint, true);

COMMENT ON VIEW lead_audit.trigger_kind IS
  'Internal: the audit triggers that each watched table has.';

COMMENT ON COLUMN lead_audit.trigger_kind.name IS 'Name of the trigger.';

COMMENT ON COLUMN lead_audit.trigger_kind.type IS 'Events and level, as in pg_trigger.tgtype.';

COMMENT ON COLUMN lead_audit.trigger_kind.is_row IS
  'Whether it is the row trigger, not the TRUNCATE trigger.';

CREATE OR REPLACE FUNCTION lead_audit_internal.is_audit_trigger_name(name name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;

COMMENT ON FUNCTION lead_audit_internal.is_audit_trigger_name(name) IS
  'Whether audit triggers have this name.';

CREATE OR REPLACE VIEW lead_audit.audit_trigger AS
SELECT k.watch_id, t.tgrelid AS relation, t.tgname AS trigger_name, k.is_row,
       t.tgparentid = 0 AS is_own,
       (t.tgenabled = 'A' OR t.tgenabled = 'O' AND w.replica IS NOT TRUE)
         AND t.tgqual IS NULL AND t.tgattr = ''::pg_catalog.int2vector AND NOT t.tgdeferrable
         AND kind.name IS NOT NULL AS is_on,
       t.tgenabled = 'A'
         AND (t.tgnargs = CASE WHEN k.is_row THEN 3 ELSE 2 END
              AND pg_catalog.substr(t.tgargs, pg_catalog.octet_length(t.tgargs) - 12)
                  = '\x006f726967696e5f6f6e6c7900'::bytea)
             = (w.replica IS NOT TRUE) AS is_current
FROM pg_catalog.pg_trigger t
CROSS JOIN LATERAL (
  SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)) a(argument)
CROSS JOIN LATERAL (
  SELECT t.tgfoid = 'lead_audit.capture()'::pg_catalog.regprocedure,
         CASE WHEN a.argument ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
           THEN a.argument::pg_catalog.uuid END) k(is_row, watch_id)
LEFT JOIN lead_audit.trigger_kind kind
  ON (kind.name, kind.type, kind.is_row) = (t.tgname, t.tgtype, k.is_row)
LEFT JOIN lead_audit.watch w ON w.watch_id = k.watch_id
WHERE t.tgfoid IN ('lead_audit.capture()'::pg_catalog.regprocedure,
                   'lead_audit.capture_truncate()'::pg_catalog.regprocedure);

COMMENT ON COLUMN lead_audit.audit_trigger.watch_id IS
  'First argument of the trigger. NULL if it is no watch id.';

COMMENT ON COLUMN lead_audit.audit_trigger.relation IS 'Oid of the relation that has the trigger.';

COMMENT ON COLUMN lead_audit.audit_trigger.trigger_name IS 'Name of the trigger.';

COMMENT ON COLUMN lead_audit.audit_trigger.is_row IS
  'Whether it is the row trigger, not the TRUNCATE trigger.';

COMMENT ON COLUMN lead_audit.audit_trigger.is_own IS
  'Whether the relation has the trigger itself, not through its partitioned table.';

COMMENT ON COLUMN lead_audit.audit_trigger.is_on IS
  'Whether it is enabled, and fires for every event that it has to record.';

COMMENT ON COLUMN lead_audit.audit_trigger.is_current IS
  'Whether it is ENABLE ALWAYS, and has the last argument that lead_audit.watch.replica asks for.';

CREATE OR REPLACE VIEW lead_audit.trigger_state AS
WITH RECURSIVE a AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
tree(watch_id, relation) AS (
  SELECT a.watch_id, a.relation FROM a
  UNION
  SELECT t.watch_id, i.inhrelid FROM tree t
  JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
below AS (
  SELECT DISTINCT c.watch_id, c.relation
  FROM a c
  JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.relation
  JOIN a p ON p.relation = i.inhparent AND p.watch_id = c.watch_id
),
triggers AS (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on,
         bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM a GROUP BY a.relation
)
SELECT m.watch_id,
       min(m.relation::bigint) FILTER (
         WHERE b.relation IS NULL
           AND EXISTS (SELECT FROM a WHERE a.watch_id = m.watch_id AND a.relation = m.relation)
       )::oid AS root,
       bool_and(coalesce(t.row_on, false)) AS row_on,
       bool_and(coalesce(t.truncate_on, c.relkind = 'f')) AS truncate_on
FROM tree m
JOIN pg_catalog.pg_class c
  ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN below b ON b.watch_id = m.watch_id AND b.relation = m.relation
LEFT JOIN triggers t ON t.relation = m.relation
GROUP BY m.watch_id;

COMMENT ON VIEW lead_audit.trigger_state IS
  'Internal: whether all audit triggers of each watched table are on, those of its partitions and '
  'child tables included.';

COMMENT ON COLUMN lead_audit.trigger_state.watch_id IS 'Watched table.';

COMMENT ON COLUMN lead_audit.trigger_state.root IS
  'Oid of the watched table itself, above its partitions and child tables.';

COMMENT ON COLUMN lead_audit.trigger_state.row_on IS 'Whether all row triggers are on.';

COMMENT ON COLUMN lead_audit.trigger_state.truncate_on IS 'Whether all TRUNCATE triggers are on.';

CREATE FUNCTION lead_audit_internal.watch_row(identity uuid) RETURNS lead_audit.watch
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_watch_row';

CREATE FUNCTION lead_audit_internal.relation_row(relation oid) RETURNS lead_audit.watched_relation
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_relation_row';

CREATE FUNCTION lead_audit_internal.relations_of(identity uuid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relations_of_wrapper';

CREATE FUNCTION lead_audit_internal.roots_of(identity uuid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'roots_of_wrapper';

CREATE FUNCTION lead_audit_internal.renamed_relations() RETURNS SETOF oid
  LANGUAGE c AS 'MODULE_PATHNAME', 'renamed_relations_wrapper';

CREATE FUNCTION lead_audit_internal.identities_named(table_schema text, table_name text)
  RETURNS SETOF uuid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'identities_named_wrapper';

CREATE FUNCTION lead_audit_internal.identities_among(relations oid[]) RETURNS SETOF uuid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'identities_among_wrapper';

CREATE FUNCTION lead_audit_internal.lock_watch(identity uuid) RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lock_watch_wrapper';

CREATE FUNCTION lead_audit_internal.put_watch(watching lead_audit.watch) RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_put_watch';

CREATE FUNCTION lead_audit_internal.put_relation(known lead_audit.watched_relation) RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_put_relation';

CREATE FUNCTION lead_audit_internal.forget_relation(relation oid) RETURNS boolean
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'forget_relation_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.watch_row(uuid), lead_audit_internal.relation_row(oid),
  lead_audit_internal.relations_of(uuid), lead_audit_internal.roots_of(uuid),
  lead_audit_internal.renamed_relations(), lead_audit_internal.identities_named(text, text),
  lead_audit_internal.identities_among(oid[]), lead_audit_internal.lock_watch(uuid),
  lead_audit_internal.put_watch(lead_audit.watch),
  lead_audit_internal.put_relation(lead_audit.watched_relation),
  lead_audit_internal.forget_relation(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.watch_row(uuid) IS
  'Returns the row of lead_audit.watch, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.relation_row(oid) IS
  'Returns the row of lead_audit.watched_relation, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.relations_of(uuid) IS
  'Returns the relations of a watched table, from lead_audit.watched_relation.';

COMMENT ON FUNCTION lead_audit_internal.roots_of(uuid) IS
  'Returns the relation that is the watched table itself: at most one, from '
  'lead_audit.watched_relation.';

COMMENT ON FUNCTION lead_audit_internal.renamed_relations() IS
  'Returns the relations whose name or schema differs from lead_audit.watched_relation.';

COMMENT ON FUNCTION lead_audit_internal.identities_named(text, text) IS
  'Returns the watch ids with this last known name.';

COMMENT ON FUNCTION lead_audit_internal.identities_among(oid[]) IS
  'Returns the watch ids of relations, from lead_audit.watched_relation and from their triggers.';

COMMENT ON FUNCTION lead_audit_internal.lock_watch(uuid) IS
  'Locks the row of lead_audit.watch until the transaction ends. Waits for other transactions '
  'that change it.';

COMMENT ON FUNCTION lead_audit_internal.put_watch(lead_audit.watch) IS
  'Inserts or replaces a row of lead_audit.watch.';

COMMENT ON FUNCTION lead_audit_internal.put_relation(lead_audit.watched_relation) IS
  'Inserts or replaces a row of lead_audit.watched_relation.';

COMMENT ON FUNCTION lead_audit_internal.forget_relation(oid) IS
  'Deletes a row of lead_audit.watched_relation. Returns whether there was one.';

CREATE FUNCTION lead_audit_internal.run_trigger_ddl(relation regclass, command text)
  RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'run_trigger_ddl_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.run_trigger_ddl(regclass, text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.run_trigger_ddl(regclass, text) IS
  'Runs a command on the audit triggers of a table. A function that PostgreSQL calls meanwhile, '
  'as for a partition key, runs as the owner of the table and can only read.';

CREATE FUNCTION lead_audit_internal.refuse_written(relations oid[]) RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'refuse_written_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.refuse_written(oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.refuse_written(oid[]) IS
  'Raises error 55006 if code that the current DDL command called wrote to one of the tables.';

CREATE FUNCTION lead_audit_internal.class_of(relation oid)
  RETURNS TABLE (kind text, is_temporary boolean, is_partition boolean, table_schema text,
                 table_name text)
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'class_of_wrapper';

CREATE FUNCTION lead_audit_internal.relation_named(table_schema text, table_name text) RETURNS oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relation_named_wrapper';

CREATE FUNCTION lead_audit_internal.column_number(relation oid, name text) RETURNS smallint
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_number_wrapper';

CREATE FUNCTION lead_audit_internal.column_name(relation oid, number smallint) RETURNS text
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_name_wrapper';

CREATE FUNCTION lead_audit_internal.column_type(relation oid, name text) RETURNS oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_type_wrapper';

CREATE FUNCTION lead_audit_internal.columns_of(relation oid) RETURNS text
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'columns_of_wrapper';

CREATE FUNCTION lead_audit_internal.tables_with(type oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'tables_with_wrapper';

CREATE FUNCTION lead_audit_internal.foreign_tables_of(class oid, object oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'foreign_tables_of_wrapper';

CREATE FUNCTION lead_audit_internal.server_named(name text) RETURNS oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'server_named_wrapper';

CREATE FUNCTION lead_audit_internal.reached_from(relation oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'reached_from_wrapper';

CREATE FUNCTION lead_audit_internal.audit_triggers_of(relation oid)
  RETURNS TABLE (watch_id uuid, trigger_name text, is_row boolean, is_own boolean, is_on boolean,
                 is_current boolean)
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'audit_triggers_of_wrapper';

CREATE FUNCTION lead_audit_internal.triggers_of(relation oid)
  RETURNS TABLE (name text, kind smallint, is_internal boolean, is_constraint boolean)
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'triggers_of_wrapper';

CREATE FUNCTION lead_audit_internal.relation_of_trigger(trigger oid)
  RETURNS TABLE (relation oid, trigger_name text, is_own boolean, is_audit boolean)
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relation_of_trigger_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.class_of(oid),
  lead_audit_internal.relation_named(text, text), lead_audit_internal.column_number(oid, text),
  lead_audit_internal.column_name(oid, smallint), lead_audit_internal.column_type(oid, text),
  lead_audit_internal.columns_of(oid), lead_audit_internal.tables_with(oid),
  lead_audit_internal.foreign_tables_of(oid, oid), lead_audit_internal.server_named(text),
  lead_audit_internal.reached_from(oid), lead_audit_internal.audit_triggers_of(oid),
  lead_audit_internal.triggers_of(oid), lead_audit_internal.relation_of_trigger(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.class_of(oid) IS
  'Returns kind (pg_class.relkind) and name of a relation. No row if the relation is gone.';

COMMENT ON FUNCTION lead_audit_internal.relation_named(text, text) IS
  'Returns the relation with this name, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_number(oid, text) IS
  'Returns the number of a column, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_name(oid, smallint) IS
  'Returns the name of a column, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_type(oid, text) IS
  'Returns the type of a column, or NULL. Of a domain, the base type.';

COMMENT ON FUNCTION lead_audit_internal.columns_of(oid) IS
  'Returns a text that changes when the columns of the table change, or the attributes of '
  'composite types in them.';

COMMENT ON FUNCTION lead_audit_internal.tables_with(oid) IS
  'Returns the tables that have a column of this type, or of a type that contains it.';

COMMENT ON FUNCTION lead_audit_internal.foreign_tables_of(oid, oid) IS
  'Returns the foreign tables that use a foreign-data wrapper, a server or a user mapping: class '
  'is its catalog.';

COMMENT ON FUNCTION lead_audit_internal.server_named(text) IS
  'Returns the foreign server with this name, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.reached_from(oid) IS
  'Returns a table, its partitions and child tables, and the tables that have columns of their '
  'row types. For a composite type only the latter.';

COMMENT ON FUNCTION lead_audit_internal.audit_triggers_of(oid) IS
  'Returns the audit triggers of a relation, with the columns of the view audit_trigger.';

COMMENT ON FUNCTION lead_audit_internal.triggers_of(oid) IS
  'Returns all triggers of a relation. kind is pg_trigger.tgtype.';

COMMENT ON FUNCTION lead_audit_internal.relation_of_trigger(oid) IS
  'Returns the table of a trigger. No row if the trigger is gone.';

CREATE FUNCTION lead_audit_internal.change_watch(identity uuid, changes jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  present lead_audit.watch;
  changed lead_audit.watch;
BEGIN
  PERFORM lead_audit_internal.lock_watch(identity);
  present := lead_audit_internal.watch_row(identity);
  changed := jsonb_populate_record(present, changes);
  IF changed.watch_id = identity AND changed IS DISTINCT FROM present THEN
    PERFORM lead_audit_internal.put_watch(changed);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.change_watch(uuid, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.change_watch(uuid, jsonb) IS
  'Changes columns of a row of lead_audit.watch.';

CREATE FUNCTION lead_audit_internal.has_truncate_triggers(kind text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT $1 <> 'f' OR current_setting('server_version_num')::integer >= 160000
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.has_truncate_triggers(text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.has_truncate_triggers(text) IS
  'Whether a relation of this kind (pg_class.relkind) can have TRUNCATE triggers.';

CREATE OR REPLACE FUNCTION lead_audit_internal.is_complete(relation oid, identity uuid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         AND coalesce(bool_or(a.is_on) FILTER (WHERE NOT a.is_row),
                      (SELECT c.kind = 'f' FROM lead_audit_internal.class_of($1) c), false)
  FROM lead_audit_internal.audit_triggers_of($1) a WHERE a.watch_id = $2
$$;

COMMENT ON FUNCTION lead_audit_internal.is_complete(oid, uuid) IS
  'Whether the relation has all audit triggers with this watch id, and all are on.';

CREATE OR REPLACE FUNCTION lead_audit_internal.members_of(root oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'members_of_wrapper';

CREATE OR REPLACE FUNCTION lead_audit_internal.ancestors_of(member oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'ancestors_of_wrapper';

CREATE FUNCTION lead_audit_internal.parents_of(member oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'parents_of_wrapper';

CREATE FUNCTION lead_audit_internal.lock_members(root oid) RETURNS void
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lock_members_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.members_of(oid), lead_audit_internal.ancestors_of(oid),
  lead_audit_internal.parents_of(oid), lead_audit_internal.lock_members(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.members_of(oid) IS
  'Returns a table, its partitions and its child tables at any depth, without temporary tables.';

COMMENT ON FUNCTION lead_audit_internal.ancestors_of(oid) IS
  'Returns the tables, at any depth, of which a table is a partition or child table.';

COMMENT ON FUNCTION lead_audit_internal.parents_of(oid) IS
  'Returns the tables of which a table is directly a partition or child table.';

COMMENT ON FUNCTION lead_audit_internal.lock_members(oid) IS
  'Locks a table, its partitions and child tables as CREATE TRIGGER does. Until the transaction '
  'ends, nobody adds another one.';

CREATE FUNCTION lead_audit_internal.root_of(relation oid, identity uuid) RETURNS oid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT min(t.r::bigint)::oid
  FROM (SELECT $1 UNION ALL SELECT lead_audit_internal.ancestors_of($1)) t(r)
  WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(t.r) a WHERE a.watch_id = $2)
    AND NOT EXISTS (SELECT FROM lead_audit_internal.parents_of(t.r) p
                    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(p) a
                    WHERE a.watch_id = $2)
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.root_of(oid, uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.root_of(oid, uuid) IS
  'Returns the topmost table with triggers of this watch id: the relation itself or one above it.';

CREATE OR REPLACE FUNCTION lead_audit_internal.shape_of(relation oid) RETURNS bytea
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(convert_to(lead_audit_internal.columns_of($1), 'UTF8'))
$$;

COMMENT ON FUNCTION lead_audit_internal.shape_of(oid) IS
  'Returns a digest of the table''s columns, and of the attributes of composite types in them.';

CREATE FUNCTION lead_audit_internal.primary_key_of(relation oid)
  RETURNS TABLE (attnums smallint[], names text[], types text[])
  STRICT ROWS 1 LANGUAGE c AS 'MODULE_PATHNAME', 'primary_key_of_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.primary_key_of(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.primary_key_of(oid) IS
  'Returns the columns of the table''s primary key, in the order of their numbers.';

COMMENT ON VIEW lead_audit.watched IS
  'The watched tables, and whether their audit triggers exist and are enabled.';

COMMENT ON COLUMN lead_audit.watched.relation IS
  'Name of the table, quoted and with its schema if necessary.';

COMMENT ON COLUMN lead_audit.watched.truncate_trigger_on IS
  'Whether TRUNCATE is recorded, in all partitions and child tables.';

COMMENT ON COLUMN lead_audit.watched.state IS
  'on; disabled (somebody disabled or dropped an audit trigger); unregistered (the table has '
  'audit triggers but no row in lead_audit.watch, as after a restore of the table alone; its '
  'writes are recorded all the same).';

COMMENT ON COLUMN lead_audit.watched.soft_delete_column IS
  'Boolean column that turns true when a row is soft-deleted, or NULL.';

COMMENT ON COLUMN lead_audit.watched.enabled_at IS 'Time at which watching began.';

COMMENT ON COLUMN lead_audit.watched.baseline_at IS
  'Time at which a baseline was written, or NULL.';

COMMENT ON COLUMN lead_audit.watched.watch_id IS
  'Identity of the table, part of each of its entries.';

COMMENT ON COLUMN lead_audit.watched.replica IS
  'Whether all writes by logical replication are recorded too.';

CREATE OR REPLACE FUNCTION lead_audit_internal.watch_of(relation regclass) RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of($1) a
     ORDER BY a.trigger_name COLLATE "C" LIMIT 1),
    (SELECT m.watch_id FROM lead_audit_internal.relation_row($1) m),
    (SELECT w.watch_id FROM lead_audit_internal.class_of($1) c
     CROSS JOIN LATERAL lead_audit_internal.identities_named(c.table_schema, c.table_name) i
     CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
     WHERE w.state NOT IN ('dropped', 'merged') ORDER BY w.enabled_at DESC LIMIT 1))
$$;

COMMENT ON FUNCTION lead_audit_internal.watch_of(regclass) IS
  'Returns the watch id of a table that is or was watched, or NULL.';

CREATE OR REPLACE FUNCTION lead_audit_internal.watched_above(member oid) RETURNS oid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT r FROM lead_audit_internal.audit_triggers_of($1) a
  CROSS JOIN LATERAL lead_audit_internal.root_of($1, a.watch_id) r WHERE r <> $1 LIMIT 1
$$;

COMMENT ON FUNCTION lead_audit_internal.watched_above(oid) IS
  'Returns the watched table of which a relation is a partition or child table, or NULL.';

CREATE OR REPLACE FUNCTION lead_audit_internal.make_triggers(
  relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stray record;
BEGIN
  FOR stray IN
    SELECT a.trigger_name FROM lead_audit_internal.audit_triggers_of($1) a
    WHERE a.is_own AND a.trigger_name NOT IN ('00_lead_audit_row', '00_lead_audit_truncate')
  LOOP
    PERFORM lead_audit_internal.run_trigger_ddl(
      $1, format('DROP TRIGGER %I ON %s', stray.trigger_name, $1));
  END LOOP;
  PERFORM lead_audit_internal.free_trigger_names(m) FROM lead_audit_internal.members_of($1) m;
  PERFORM lead_audit_internal.make_member_triggers(m, $2, $3, m = $1::oid)
  FROM (SELECT m FROM lead_audit_internal.members_of($1) m
        WHERE NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(m) a
                          WHERE a.is_row AND a.is_own AND a.watch_id <> $2)
        ORDER BY m <> $1::oid) m;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.make_triggers(regclass, uuid, text) IS
  'Creates or repairs the audit triggers of a table, its partitions and child tables.';

CREATE FUNCTION lead_audit_internal.free_trigger_names(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  occupant record;
  new_name text;
BEGIN
  FOR occupant IN
    SELECT t.name FROM lead_audit_internal.triggers_of($1) t
    WHERE t.is_constraint AND lead_audit_internal.is_audit_trigger_name(t.name::name)
  LOOP
    new_name := (
      SELECT 'not_' || occupant.name || '_' || min(n) FROM generate_series(1, 1000) n
      WHERE NOT EXISTS (SELECT FROM lead_audit_internal.triggers_of($1) u
                        WHERE u.name = 'not_' || occupant.name || '_' || n));
    PERFORM lead_audit_internal.run_trigger_ddl(
      $1, format('ALTER TRIGGER %I ON %s RENAME TO %I', occupant.name, $1, new_name));
    RAISE WARNING 'constraint trigger % of % is renamed to %', occupant.name, $1, new_name
      USING DETAIL = 'It had the name of an audit trigger.';
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.free_trigger_names(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.free_trigger_names(regclass) IS
  'Renames constraint triggers that have the name of an audit trigger.';

CREATE OR REPLACE FUNCTION lead_audit_internal.make_member_triggers(
  member oid, watch_id uuid, soft_delete_column text, is_root boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
BEGIN
  SELECT * INTO class FROM lead_audit_internal.class_of(member);
  IF is_root OR NOT class.is_partition THEN
    PERFORM lead_audit_internal.make_row_trigger(member, watch_id, soft_delete_column);
  END IF;
  IF lead_audit_internal.has_truncate_triggers(class.kind) THEN
    PERFORM lead_audit_internal.make_truncate_trigger(member, watch_id);
  END IF;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.make_member_triggers(oid, uuid, text, boolean) IS
  'Creates the audit triggers of one relation of a watched table.';

CREATE OR REPLACE FUNCTION lead_audit_internal.make_trigger(
  relation regclass, name text, events text, level text, function text, arguments text[],
  identity uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (lead_audit_internal.watch_row(identity)).replica IS NOT TRUE THEN
    arguments := arguments || 'origin_only'::text;
  END IF;
  PERFORM lead_audit_internal.run_trigger_ddl(relation, format(
    'CREATE OR REPLACE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION lead_audit.%I(%s)',
    name, events, relation, level, function,
    (SELECT string_agg(quote_literal(a), ', ' ORDER BY n)
     FROM unnest(arguments) WITH ORDINALITY u(a, n))));
  PERFORM lead_audit_internal.run_trigger_ddl(relation, format(
    'ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, name));
END
$$;

COMMENT ON FUNCTION
  lead_audit_internal.make_trigger(regclass, text, text, text, text, text[], uuid) IS
  'Creates one audit trigger of a relation.';

CREATE FUNCTION lead_audit_internal.make_row_trigger(
  relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.make_trigger(
    $1, '00_lead_audit_row', 'AFTER INSERT OR UPDATE OR DELETE', 'ROW', 'capture',
    ARRAY[$2::text, coalesce($3, '')], $2)
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.make_row_trigger(regclass, uuid, text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.make_row_trigger(regclass, uuid, text) IS
  'Creates the row trigger of one relation of a watched table.';

CREATE OR REPLACE FUNCTION lead_audit_internal.make_truncate_trigger(relation regclass, watch_id uuid)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.make_trigger(
    $1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate',
    ARRAY[$2::text], $2)
$$;

COMMENT ON FUNCTION lead_audit_internal.make_truncate_trigger(regclass, uuid) IS
  'Creates the TRUNCATE trigger of one relation of a watched table.';

CREATE FUNCTION lead_audit_internal.renew_triggers(identity uuid, relations oid[])
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  old record;
  found_one boolean := false;
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
BEGIN
  IF watching.state NOT IN ('on', 'disabled') THEN
    RETURN false;
  END IF;
  FOR old IN
    SELECT r::regclass AS on_relation, a.trigger_name, a.is_row, a.is_own
    FROM (SELECT DISTINCT u FROM unnest(relations) u) d(r)
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(r) a
    WHERE a.watch_id = identity AND a.is_on AND NOT a.is_current
      AND a.trigger_name IN ('00_lead_audit_row', '00_lead_audit_truncate')
    ORDER BY a.is_own DESC
  LOOP
    found_one := true;
    IF NOT old.is_own OR watching.state IS NULL THEN
      PERFORM lead_audit_internal.run_trigger_ddl(old.on_relation, format(
        'ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', old.on_relation, old.trigger_name));
    ELSIF old.is_row THEN
      PERFORM lead_audit_internal.make_row_trigger(
        old.on_relation, identity, watching.soft_delete_column);
    ELSE
      PERFORM lead_audit_internal.make_truncate_trigger(old.on_relation, identity);
    END IF;
  END LOOP;
  RETURN found_one;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.renew_triggers(uuid, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.renew_triggers(uuid, oid[]) IS
  'Makes enabled audit triggers of relations ENABLE ALWAYS again, with the arguments that they '
  'should have. Returns whether there were others.';

CREATE OR REPLACE FUNCTION lead_audit_internal.drop_triggers(identity uuid, relations oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  own record;
BEGIN
  FOR own IN
    SELECT r::regclass AS on_relation, a.trigger_name
    FROM (SELECT DISTINCT u FROM unnest(relations) u) d(r)
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(r) a
    WHERE a.watch_id = identity AND a.is_own ORDER BY a.is_row DESC
  LOOP
    PERFORM lead_audit_internal.run_trigger_ddl(
      own.on_relation, format('DROP TRIGGER %I ON %s', own.trigger_name, own.on_relation));
  END LOOP;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) IS
  'Drops the audit triggers with this watch id from relations.';

CREATE OR REPLACE FUNCTION lead_audit_internal.note_relations(identity uuid, touched oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r oid;
  class record;
  known lead_audit.watched_relation;
  now_known lead_audit.watched_relation;
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
BEGIN
  FOREACH r IN ARRAY coalesce(touched, array(
    SELECT DISTINCT a.relation FROM lead_audit.audit_trigger a WHERE a.watch_id = identity))
  LOOP
    SELECT * INTO class FROM lead_audit_internal.class_of(r);
    CONTINUE WHEN NOT FOUND;
    known := lead_audit_internal.relation_row(r);
    now_known := known;
    IF EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(r) a
               WHERE a.watch_id = identity AND a.is_row) THEN
      now_known.relation := r;
      now_known.watch_id := identity;
      now_known.is_root := r = lead_audit_internal.root_of(r, identity);
      now_known.soft_delete_attnum :=
        lead_audit_internal.column_number(r, watching.soft_delete_column);
      now_known.is_complete := lead_audit_internal.is_complete(r, identity);
      now_known.shape := lead_audit_internal.shape_of(r);
      SELECT k.attnums, k.names, k.types
        INTO now_known.key_attnums, now_known.key_names, now_known.key_types
        FROM lead_audit_internal.primary_key_of(r) k;
      now_known.is_restored := coalesce(known.is_restored, false);
    ELSIF known.watch_id = identity THEN
      -- Without triggers, only completeness can have changed.
      now_known.is_complete := known.is_complete AND lead_audit_internal.is_complete(r, identity);
    ELSE
      CONTINUE;
    END IF;
    now_known.table_schema := class.table_schema;
    now_known.table_name := class.table_name;
    IF now_known IS DISTINCT FROM known THEN
      PERFORM lead_audit_internal.put_relation(now_known);
    END IF;
    watching := lead_audit_internal.watch_row(identity);
    IF now_known.is_root AND watching.state <> 'changing'
       AND (watching.table_schema, watching.table_name) <> (class.table_schema, class.table_name)
    THEN
      PERFORM lead_audit_internal.change_watch(identity, jsonb_build_object(
        'table_schema', class.table_schema, 'table_name', class.table_name));
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) IS
  'Brings lead_audit.watched_relation up to date for those relations that belong to a watched '
  'table. With NULL, for all relations with its triggers.';

CREATE OR REPLACE FUNCTION lead_audit_internal.last_entry() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END
          FROM lead_audit.entry_id_seq s);
EXCEPTION WHEN undefined_table THEN
  -- Somebody has moved the sequence away. No entry can be written then.
  RETURN 0;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.last_entry() IS
  'Returns the highest id that was given out.';

CREATE FUNCTION lead_audit_internal.note_earlier_identity(identity uuid, earlier uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry)
  VALUES ($1, $2, lead_audit_internal.last_entry())
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.note_earlier_identity(uuid, uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.note_earlier_identity(uuid, uuid) IS
  'Adds the entries so far of another watch id to the history of a watched table.';

CREATE FUNCTION lead_audit_internal.merge_watch(former uuid, identity uuid, relations oid[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit_internal.change_watch(former, '{"state": "changing"}');
  PERFORM lead_audit_internal.drop_triggers(
    former, relations || array(SELECT lead_audit_internal.relations_of(former)));
  PERFORM lead_audit_internal.note_earlier_identity(identity, former);
  PERFORM lead_audit_internal.forget_relation(r) FROM lead_audit_internal.relations_of(former) r;
  PERFORM lead_audit_internal.change_watch(former, jsonb_build_object(
    'state', 'merged', 'ended_at', clock_timestamp()));
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.merge_watch(uuid, uuid, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.merge_watch(uuid, uuid, oid[]) IS
  'Ends the watching of a table on its own that has become a partition of another watched table.';

CREATE OR REPLACE FUNCTION lead_audit_internal.warn_of_earlier_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  earlier text;
BEGIN
  SELECT string_agg(quote_ident(t.name), ', ') INTO earlier
  FROM lead_audit_internal.triggers_of(relation) t
  WHERE NOT t.is_internal AND t.kind & 67 = 1 AND t.name COLLATE "C" < '00_lead_audit_row';
  IF earlier IS NOT NULL THEN
    RAISE WARNING 'triggers of % run before the audit trigger: %', relation, earlier
      USING DETAIL = 'AFTER ROW triggers run in the order of their names. If one of them writes '
                     'the same row again, that entry gets the lower id.',
            HINT = 'Rename them so that their names sort after 00_lead_audit_row.';
  END IF;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.warn_of_earlier_triggers(regclass) IS
  'Warns of AFTER ROW triggers whose names sort before the audit trigger.';

CREATE OR REPLACE FUNCTION lead_audit_internal.soft_delete_column_of(relation regclass, wanted name)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found_type regtype :=
    lead_audit_internal.column_type(relation, coalesce(wanted, 'is_deleted'));
  hint CONSTANT text :=
    'soft_delete_column names the boolean column that turns true when a row is soft-deleted.';
BEGIN
  IF wanted IS NULL THEN
    RETURN CASE WHEN found_type = 'boolean'::regtype THEN 'is_deleted' END;
  ELSIF found_type IS NULL THEN
    RAISE EXCEPTION 'column "%" of relation % does not exist', wanted, relation
      USING ERRCODE = 'undefined_column', HINT = hint;
  ELSIF found_type <> 'boolean'::regtype THEN
    RAISE EXCEPTION 'column "%" of relation % is of type %, not boolean',
      wanted, relation, found_type
      USING ERRCODE = 'datatype_mismatch', HINT = hint;
  END IF;
  RETURN wanted;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.soft_delete_column_of(regclass, name) IS
  'Returns the soft-delete column that enable() uses, or NULL. Errors 42703, 42804.';

COMMENT ON FUNCTION lead_audit_internal.require_library() IS
  'Raises error 55000 if the library is older than the SQL objects.';

CREATE FUNCTION lead_audit_internal.require_relation(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM lead_audit_internal.class_of(relation)) THEN
    RAISE EXCEPTION 'relation % does not exist', relation
      USING ERRCODE = 'undefined_table',
            HINT = 'Give the name of a table: SELECT lead_audit.enable(''schema.table'');';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.require_relation(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.require_relation(regclass) IS
  'Raises error 42P01 if the relation does not exist.';

CREATE FUNCTION lead_audit_internal.require_table(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
BEGIN
  SELECT * INTO class FROM lead_audit_internal.class_of(relation);
  IF class.kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% cannot be watched: it is not a table', relation
      USING ERRCODE = 'wrong_object_type';
  ELSIF class.is_temporary THEN
    RAISE EXCEPTION '% cannot be watched: it is a temporary table', relation
      USING ERRCODE = 'wrong_object_type',
            DETAIL = 'Only its session sees a temporary table, and it ends with that session.';
  ELSIF class.table_schema IN ('pg_catalog', 'information_schema', 'lead_audit') THEN
    RAISE EXCEPTION '% cannot be watched: it belongs to schema %', relation, class.table_schema
      USING ERRCODE = 'wrong_object_type';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.require_table(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.require_table(regclass) IS
  'Raises error 42809 unless the relation is a permanent table of the application.';

CREATE FUNCTION lead_audit_internal.lock_table(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.lock_table(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.lock_table(regclass) IS
  'Locks a table as CREATE TRIGGER does: nobody writes to it until the transaction ends.';

CREATE FUNCTION lead_audit_internal.refuse_member(member regclass, above regclass, hint text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% is watched as a part of %', member, above
    USING ERRCODE = 'wrong_object_type',
          DETAIL = 'Partitions and child tables are watched together with the table above them.',
          HINT = hint;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.refuse_member(regclass, regclass, text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.refuse_member(regclass, regclass, text) IS
  'Raises error 42809 for a partition or child table of a watched table.';

CREATE FUNCTION lead_audit_internal.wanted_watch(
  relation regclass, watching lead_audit.watch, soft_delete_column name, replica boolean)
RETURNS lead_audit.watch LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted lead_audit.watch;
BEGIN
  -- Triggers of a restored table keep the watch id that they carry.
  wanted.watch_id := coalesce(
    watching.watch_id, lead_audit_internal.watch_of(relation), gen_random_uuid());
  SELECT c.table_schema, c.table_name INTO wanted.table_schema, wanted.table_name
  FROM lead_audit_internal.class_of(relation) c;
  wanted.replica := coalesce(replica, watching.replica, false);
  wanted.soft_delete_column := CASE
    WHEN soft_delete_column IS NULL AND watching.state = 'on' THEN watching.soft_delete_column
    ELSE lead_audit_internal.soft_delete_column_of(relation, soft_delete_column) END;
  wanted.enabled_at := CASE
    WHEN watching.state <> 'off' THEN watching.enabled_at ELSE clock_timestamp() END;
  wanted.baseline_at := watching.baseline_at;
  wanted.state := 'changing';
  RETURN wanted;
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.wanted_watch(regclass, lead_audit.watch, name, boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.wanted_watch(regclass, lead_audit.watch, name, boolean) IS
  'Returns the row of lead_audit.watch that a call of enable() asks for.';

CREATE FUNCTION lead_audit_internal.begin_watch(
  relation regclass, watching lead_audit.watch, wanted lead_audit.watch) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF watching.watch_id IS NULL THEN
    PERFORM lead_audit_internal.put_watch(wanted);
    RETURN;
  END IF;
  PERFORM lead_audit_internal.change_watch(watching.watch_id, to_jsonb(wanted));
  IF watching.state <> 'on'
     OR (wanted.soft_delete_column, wanted.replica)
        IS DISTINCT FROM (watching.soft_delete_column, watching.replica) THEN
    PERFORM lead_audit_internal.record_command(
      watching.watch_id, relation, wanted.table_schema, wanted.table_name);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.begin_watch(regclass, lead_audit.watch, lead_audit.watch) FROM PUBLIC;

COMMENT ON FUNCTION
  lead_audit_internal.begin_watch(regclass, lead_audit.watch, lead_audit.watch) IS
  'Writes the row of lead_audit.watch, in the state changing.';

CREATE FUNCTION lead_audit_internal.merge_partitions(
  relation regclass, identity uuid, members oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  part record;
BEGIN
  FOR part IN
    SELECT DISTINCT a.watch_id, m AS relation, c.table_schema, c.table_name
    FROM unnest(members) m
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a
    CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
    WHERE a.is_row AND a.is_own AND a.watch_id <> identity AND c.is_partition
      AND m <> merge_partitions.relation::oid
    ORDER BY c.table_schema, c.table_name
  LOOP
    PERFORM lead_audit_internal.record_command(
      part.watch_id, part.relation, part.table_schema, part.table_name);
    PERFORM lead_audit_internal.merge_watch(
      part.watch_id, identity, array(SELECT lead_audit_internal.members_of(part.relation)));
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.merge_partitions(regclass, uuid, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.merge_partitions(regclass, uuid, oid[]) IS
  'Merges partitions that were watched on their own into the watched table.';

CREATE FUNCTION lead_audit_internal.write_baseline_once(
  relation regclass, wanted lead_audit.watch, members oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF wanted.baseline_at IS NOT NULL THEN
    RAISE NOTICE '% already has a baseline, written at %', relation, wanted.baseline_at;
    RETURN;
  END IF;
  PERFORM lead_audit_internal.write_baseline(
    m, wanted.watch_id, coalesce(wanted.soft_delete_column, ''))
  FROM (SELECT m FROM unnest(members) m CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
        WHERE c.kind = 'r' AND lead_audit_internal.is_complete(m, wanted.watch_id) ORDER BY m) m;
  PERFORM lead_audit_internal.change_watch(
    wanted.watch_id, jsonb_build_object('baseline_at', clock_timestamp()));
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.write_baseline_once(regclass, lead_audit.watch, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.write_baseline_once(regclass, lead_audit.watch, oid[]) IS
  'Writes the baseline of a watched table, unless it has one.';

CREATE OR REPLACE FUNCTION lead_audit_internal.watch_table(
  relation regclass, soft_delete_column name, baseline boolean, replica boolean) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  watching lead_audit.watch;
  wanted lead_audit.watch;
  above regclass;
  members oid[];
BEGIN
  PERFORM lead_audit_internal.require_library();
  PERFORM lead_audit_internal.require_relation(relation);
  PERFORM lead_audit_internal.require_table(relation);
  PERFORM lead_audit_internal.lock_table(relation);
  PERFORM lead_audit_internal.lock_members(relation);
  members := array(SELECT lead_audit_internal.members_of(relation));

  above := lead_audit_internal.watched_above(relation);
  IF above IS NOT NULL THEN
    IF soft_delete_column IS NOT NULL OR baseline OR replica IS NOT NULL THEN
      PERFORM lead_audit_internal.refuse_member(
        relation, above, format('Call lead_audit.enable() for %s.', above));
    END IF;
    RAISE NOTICE '% is watched already, as a part of %', relation, above;
    RETURN lead_audit_internal.watch_of(relation);
  END IF;

  watching := lead_audit_internal.watch_row(lead_audit_internal.watch_of(relation));
  wanted := lead_audit_internal.wanted_watch(relation, watching, soft_delete_column, replica);
  PERFORM lead_audit_internal.begin_watch(relation, watching, wanted);
  PERFORM lead_audit_internal.merge_partitions(relation, wanted.watch_id, members);
  IF (wanted.soft_delete_column, wanted.replica)
     IS DISTINCT FROM (watching.soft_delete_column, watching.replica)
     OR EXISTS (SELECT FROM unnest(members) m
                WHERE NOT lead_audit_internal.is_complete(m, wanted.watch_id))
     OR EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(relation) a
                WHERE NOT (a.is_on AND a.is_current))
     OR EXISTS (SELECT FROM unnest(members) m CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
                WHERE lead_audit_internal.has_truncate_triggers(c.kind)
                  AND NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(m) a
                                  WHERE NOT a.is_row))
  THEN
    PERFORM lead_audit_internal.make_triggers(
      relation, wanted.watch_id, wanted.soft_delete_column);
  END IF;
  PERFORM lead_audit_internal.note_relations(wanted.watch_id, members);
  PERFORM lead_audit_internal.warn_of_earlier_triggers(relation);
  IF baseline THEN
    PERFORM lead_audit_internal.write_baseline_once(relation, wanted, members);
  END IF;
  PERFORM lead_audit_internal.change_watch(wanted.watch_id, '{"state": "on"}');
  RETURN wanted.watch_id;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.watch_table(regclass, name, boolean, boolean) IS
  'Does the work of enable().';

CREATE OR REPLACE FUNCTION lead_audit.enable(
  relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $2, $3, NULL)
$$;

CREATE OR REPLACE FUNCTION lead_audit.enable(
  relation regclass, replica boolean, soft_delete_column name DEFAULT NULL,
  baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $3, $4, $2)
$$;

COMMENT ON FUNCTION lead_audit.enable(regclass, name, boolean) IS
  'Watches a table from now on, with its partitions and child tables. Returns its watch id. A '
  'second call changes only the options that it is given. soft_delete_column: the boolean column '
  'that marks a row as deleted; by default is_deleted, if the table has such a column. baseline: '
  'whether to write one SNAPSHOT entry for each existing row first. Errors: 42P01 if the relation '
  'does not exist, 42809 if it is not a permanent table or is watched as a part of another, 42703 '
  'or 42804 if it has no such boolean column.';

COMMENT ON FUNCTION lead_audit.enable(regclass, boolean, name, boolean) IS
  'Watches a table as enable(regclass, name, boolean) does, and sets the option replica: whether '
  'writes by logical replication or with session_replication_role = replica are recorded too. '
  'Without this option, only those of subscriptions whose owner is not a superuser are recorded, '
  'and those of code at the subscriber.';

CREATE OR REPLACE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := lead_audit_internal.watch_of(relation);
  above regclass;
  carriers oid[];
  other lead_audit.watch;
BEGIN
  PERFORM lead_audit_internal.require_library();
  PERFORM lead_audit_internal.require_relation(relation);
  PERFORM lead_audit_internal.lock_table(relation);
  carriers := array(SELECT lead_audit_internal.members_of(relation)
                    UNION SELECT lead_audit_internal.relations_of(identity));
  above := lead_audit_internal.watched_above(relation);
  IF above IS NOT NULL THEN
    PERFORM lead_audit_internal.refuse_member(
      relation, above,
      format('Call lead_audit.disable() for %s, or detach the table from it first.', above));
  END IF;
  IF NOT EXISTS (SELECT FROM unnest(carriers) m
                 CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a
                 WHERE a.watch_id = identity)
     AND coalesce((lead_audit_internal.watch_row(identity)).state, 'off') = 'off' THEN
    RETURN false;
  END IF;
  PERFORM lead_audit_internal.change_watch(identity, '{"state": "changing"}');
  PERFORM lead_audit_internal.record_command(identity, relation, c.table_schema, c.table_name)
  FROM lead_audit_internal.class_of(relation) c;
  PERFORM lead_audit_internal.drop_triggers(identity, carriers);
  -- The row of the table itself stays, so that history() finds its entries after a rename.
  PERFORM lead_audit_internal.forget_relation(r) FROM lead_audit_internal.relations_of(identity) r
  WHERE NOT (lead_audit_internal.relation_row(r)).is_root;
  PERFORM lead_audit_internal.change_watch(identity, jsonb_build_object(
    'state', 'off', 'ended_at', clock_timestamp(), 'baseline_at', NULL));
  -- A child table of several tables may be a member of one that is still watched.
  FOR other IN
    SELECT DISTINCT w.* FROM unnest(carriers) c
    CROSS JOIN LATERAL lead_audit_internal.ancestors_of(c) a
    CROSS JOIN LATERAL lead_audit_internal.relation_row(a) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE w.watch_id <> identity AND w.state = 'on'
  LOOP
    PERFORM lead_audit_internal.handle_attached(other, r, carriers, '{joined}')
    FROM lead_audit_internal.roots_of(other.watch_id) r
    CROSS JOIN LATERAL lead_audit_internal.class_of(r);
  END LOOP;
  RETURN true;
END
$$;

COMMENT ON FUNCTION lead_audit.disable(regclass) IS
  'Stops watching a table. Its entries stay, and the end of watching is an entry itself (DDL). '
  'Returns whether the table was watched. A role that may execute this function may also disable '
  'the audit triggers of its own tables by ALTER TABLE. Errors: 42P01 if the relation does not '
  'exist, 42809 if it is watched as a part of another.';

CREATE OR REPLACE FUNCTION lead_audit_internal.may_disable(who oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;

COMMENT ON FUNCTION lead_audit_internal.may_disable(oid) IS
  'Whether a role may end the watching of a table.';

CREATE OR REPLACE FUNCTION lead_audit_internal.relations_of_command(is_drop boolean)
RETURNS TABLE (relation oid, trigger_id oid, command text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF is_drop THEN
    RETURN QUERY
      -- The oid of a column is that of its relation. Triggers and constraints name their relation.
      SELECT d.objid, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      WHERE d.classid = 'pg_class'::regclass AND NOT d.is_temporary
        AND EXISTS (SELECT FROM lead_audit_internal.class_of(d.objid))
      UNION ALL
      SELECT r, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      CROSS JOIN LATERAL
        lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
      WHERE d.object_type IN ('trigger', 'table constraint') AND NOT d.is_temporary
        AND r IS NOT NULL
      UNION ALL
      SELECT t, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      CROSS JOIN LATERAL lead_audit_internal.server_named(d.address_args[1]) s
      CROSS JOIN LATERAL
        lead_audit_internal.foreign_tables_of('pg_foreign_server'::regclass, s) t
      WHERE d.object_type = 'user mapping';
  ELSE
    RETURN QUERY
      SELECT c.objid, NULL::oid, c.command_tag FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass
      UNION ALL
      SELECT t.relation, c.objid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.objid) t
      WHERE c.classid = 'pg_trigger'::regclass
      UNION ALL
      SELECT t, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.tables_with(c.objid) t
      WHERE c.classid = 'pg_type'::regclass AND c.command_tag = 'ALTER TYPE'
      UNION ALL
      SELECT t, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.foreign_tables_of(c.classid, c.objid) t
      WHERE c.classid IN ('pg_foreign_data_wrapper'::regclass, 'pg_foreign_server'::regclass,
                          'pg_user_mapping'::regclass)
      UNION ALL
      -- ALTER SCHEMA does not list the tables in the schema.
      SELECT r, NULL::oid, c.command_tag
      FROM (SELECT c.command_tag FROM pg_event_trigger_ddl_commands() c
            WHERE c.command_tag = 'ALTER SCHEMA' LIMIT 1) c
      CROSS JOIN LATERAL lead_audit_internal.renamed_relations() r;
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.affected_relations(is_drop boolean) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m
  FROM (SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command($1) c) c
  CROSS JOIN LATERAL lead_audit_internal.reached_from(c.relation) m
$$;

COMMENT ON FUNCTION lead_audit_internal.relations_of_command(boolean) IS
  'Returns the relations that the current command changes and, for its triggers, which triggers.';

COMMENT ON FUNCTION lead_audit_internal.affected_relations(boolean) IS
  'Returns the relations that the current command reaches: those that it changes, their '
  'partitions and child tables, and the tables that have columns of their row types.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_ddl(invoker oid, is_drop boolean) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused text;
  is_parting boolean := 'parted' = ANY (lead_audit_internal.command_effects());
BEGIN
  IF lead_audit_internal.may_disable(invoker) THEN
    RETURN;
  END IF;
  SELECT f::regclass::text INTO refused
  FROM lead_audit_internal.affected_relations(is_drop) f
  WHERE EXISTS (
      SELECT FROM lead_audit_internal.audit_triggers_of(f) a
      CROSS JOIN LATERAL lead_audit_internal.watch_row(a.watch_id) w
      WHERE w.state = 'on' AND NOT a.is_on)
    OR EXISTS (
      SELECT FROM lead_audit_internal.relation_row(f) m
      CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
      WHERE w.state IN ('on', 'disabled') AND m.is_complete
        AND NOT lead_audit_internal.is_complete(f, m.watch_id)
        AND (NOT is_parting OR m.is_root OR EXISTS (
          SELECT FROM lead_audit_internal.ancestors_of(f) p
          CROSS JOIN LATERAL lead_audit_internal.relation_row(p) k
          WHERE k.watch_id = m.watch_id)))
  LIMIT 1;
  IF refused IS NULL AND 'disabled' = ANY (lead_audit_internal.command_effects()) THEN
    -- The command may have enabled the triggers again, after code of the owner has run.
    SELECT c.relation::regclass::text INTO refused
    FROM lead_audit_internal.relations_of_command(is_drop) c
    WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(c.relation))
    LIMIT 1;
  END IF;
  IF refused IS NULL AND NOT is_drop THEN
    -- A trigger with the name of an audit trigger would keep a watched table from having one.
    SELECT t.relation::regclass::text INTO refused
    FROM lead_audit_internal.relations_of_command(false) c
    CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.trigger_id) t
    WHERE t.is_own
      AND (t.is_audit OR lead_audit_internal.is_audit_trigger_name(t.trigger_name::name))
    LIMIT 1;
  END IF;
  IF refused IS NULL AND is_drop AND NOT is_parting THEN
    SELECT r::regclass::text INTO refused
    FROM pg_event_trigger_dropped_objects() d
    CROSS JOIN LATERAL
      lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE d.object_type = 'trigger' AND NOT d.is_temporary
      AND lead_audit_internal.is_audit_trigger_name(d.address_names[3]::name)
      AND w.state IN ('on', 'disabled')
    LIMIT 1;
  END IF;
  IF refused IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied to disable the audit triggers of table %', refused
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'lead_audit watches the table. Its owner has no right to end that.',
            HINT = 'Name the triggers that you mean instead of ALL or USER, or ask a superuser to '
                   'run lead_audit.disable().';
  END IF;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.refuse_ddl(oid, boolean) IS
  'Refuses a command that ends the watching of a table, unless the role may do that. Error 42501.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_id_order() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- This check comes first, because the rest reads tables that this command may be repairing.
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
                 WHERE c.classid = 'pg_class'::regclass
                   AND c.objid = to_regclass('lead_audit.entry_id_seq')) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = to_regclass('lead_audit.entry_id_seq')
             AND ((s.seqcache, s.seqincrement) <> (1, 1) OR s.seqcycle))
     OR lead_audit_internal.last_entry() < (SELECT max(e.id) FROM lead_audit.entry e)
  THEN
    RAISE EXCEPTION 'sequence lead_audit.entry_id_seq cannot be altered like this'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'The ids of entries are the order of the events. The sequence gives them out '
                     'one by one, each higher than all before it.',
            HINT = 'Keep INCREMENT 1 CACHE 1 NO CYCLE, and a value above the highest id in '
                   'lead_audit.entry.';
  END IF;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.refuse_id_order() IS
  'Refuses changes of the sequence that would put ids of entries out of order. Error 55000.';

CREATE OR REPLACE FUNCTION lead_audit_internal.note_state(
  watching lead_audit.watch, new_state text, relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit_internal.record_command(
    watching.watch_id, relation, watching.table_schema, watching.table_name);
  PERFORM lead_audit_internal.change_watch(watching.watch_id, jsonb_build_object(
    'state', new_state,
    'ended_at', CASE new_state WHEN 'dropped' THEN clock_timestamp() END));
END
$$;

COMMENT ON FUNCTION lead_audit_internal.note_state(lead_audit.watch, text, oid) IS
  'Changes the state of a watched table, and records it as an entry.';

CREATE FUNCTION lead_audit_internal.watch_detached(
  watching lead_audit.watch, top lead_audit.watched_relation, parted oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh lead_audit.watch := watching;
BEGIN
  fresh.watch_id := gen_random_uuid();
  fresh.table_schema := top.table_schema;
  fresh.table_name := top.table_name;
  fresh.state := 'changing';
  fresh.enabled_at := clock_timestamp();
  PERFORM lead_audit_internal.put_watch(fresh);
  PERFORM lead_audit_internal.note_earlier_identity(fresh.watch_id, watching.watch_id);
  PERFORM lead_audit_internal.make_triggers(
    top.relation, fresh.watch_id, fresh.soft_delete_column);
  PERFORM lead_audit_internal.note_relations(fresh.watch_id, parted);
  PERFORM lead_audit_internal.change_watch(fresh.watch_id, '{"state": "on"}');
END
$$;

CREATE FUNCTION lead_audit_internal.handle_detached(watching lead_audit.watch, root oid)
RETURNS SETOF oid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members oid[] := array(SELECT lead_audit_internal.members_of(root));
  gone oid[] := array(
    SELECT r FROM lead_audit_internal.relations_of(watching.watch_id) r
    CROSS JOIN LATERAL lead_audit_internal.class_of(r)
    WHERE r <> ALL (members) AND NOT (lead_audit_internal.relation_row(r)).is_root);
  top lead_audit.watched_relation;
  parted oid[];
BEGIN
  FOR top IN
    SELECT m.* FROM unnest(gone) g CROSS JOIN LATERAL lead_audit_internal.relation_row(g) m
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(g) p WHERE p = ANY (gone))
  LOOP
    -- Another session may be about to give one of them a child table.
    PERFORM lead_audit_internal.lock_members(top.relation);
    parted := array(SELECT lead_audit_internal.members_of(top.relation));
    -- PostgreSQL has dropped the row triggers of a partition.
    PERFORM lead_audit_internal.refuse_written(parted);
    PERFORM lead_audit_internal.record_command(
      watching.watch_id, top.relation, top.table_schema, top.table_name);
    PERFORM lead_audit_internal.drop_triggers(watching.watch_id, parted);
    PERFORM lead_audit_internal.forget_relation(p) FROM unnest(parted) p
    WHERE (lead_audit_internal.relation_row(p)).watch_id = watching.watch_id;
    IF watching.state = 'on' THEN
      PERFORM lead_audit_internal.watch_detached(watching, top, parted);
    END IF;
    RETURN NEXT top.relation;
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit_internal.is_new_member(
  relation oid, watching lead_audit.watch, root oid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT root = ANY (array(SELECT lead_audit_internal.ancestors_of($1)))
         AND (lead_audit_internal.relation_row($1)).watch_id IS DISTINCT FROM ($2).watch_id
         AND NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a
                         WHERE a.is_row AND a.watch_id <> ($2).watch_id)
$$;

CREATE FUNCTION lead_audit_internal.handle_attached(
  watching lead_audit.watch, root oid, affected oid[], effects text[]) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh oid[] := array(SELECT f FROM unnest(affected) f
                       WHERE lead_audit_internal.is_new_member(f, watching, root));
  top record;
BEGIN
  IF fresh = '{}' THEN
    RETURN;
  END IF;
  -- Another session may be about to give one of them a child table.
  PERFORM lead_audit_internal.lock_members(f) FROM unnest(fresh) f;
  fresh := array(SELECT DISTINCT m FROM unnest(fresh) f
                 CROSS JOIN LATERAL lead_audit_internal.members_of(f) m
                 WHERE lead_audit_internal.is_new_member(m, watching, root));
  -- It may have been watched before, under another watch id.
  PERFORM lead_audit_internal.note_earlier_identity(watching.watch_id, k.watch_id)
  FROM (SELECT DISTINCT m.watch_id FROM unnest(fresh) f
        CROSS JOIN LATERAL lead_audit_internal.relation_row(f) m WHERE m.watch_id IS NOT NULL) k;
  PERFORM lead_audit_internal.free_trigger_names(f) FROM unnest(fresh) f;
  PERFORM lead_audit_internal.make_member_triggers(
    f, watching.watch_id, watching.soft_delete_column, false) FROM unnest(fresh) f;
  IF effects && '{joined,found}' THEN
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name
      FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c
      WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(f) p WHERE p = ANY (fresh))
    LOOP
      PERFORM lead_audit_internal.record_command(
        watching.watch_id, top.relation, top.table_schema, top.table_name);
      -- Only in the session of the command: the worker runs no code of a table's owner.
      IF watching.baseline_at IS NOT NULL AND 'joined' = ANY (effects) THEN
        PERFORM lead_audit_internal.write_baseline(
          m, watching.watch_id, coalesce(watching.soft_delete_column, ''))
        FROM lead_audit_internal.members_of(top.relation) m
        CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
        WHERE c.kind = 'r' AND m = ANY (fresh);
      END IF;
      RETURN NEXT top.relation;
    END LOOP;
  ELSE
    -- A table that the command has created has no rows, with one exception: the command may have
    -- run code of an index, a constraint or a partition key that wrote some before the triggers
    -- existed.
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name
      FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c
      WHERE c.kind = 'r'
    LOOP
      IF lead_audit_internal.write_baseline(
           top.relation, watching.watch_id, coalesce(watching.soft_delete_column, '')) > 0 THEN
        PERFORM lead_audit_internal.record_command(
          watching.watch_id, top.relation, top.table_schema, top.table_name);
        RETURN NEXT top.relation;
      END IF;
    END LOOP;
  END IF;
  PERFORM lead_audit_internal.note_relations(watching.watch_id, fresh);
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.watch_detached(lead_audit.watch, lead_audit.watched_relation, oid[]),
  lead_audit_internal.handle_detached(lead_audit.watch, oid),
  lead_audit_internal.is_new_member(oid, lead_audit.watch, oid),
  lead_audit_internal.handle_attached(lead_audit.watch, oid, oid[], text[]) FROM PUBLIC;

COMMENT ON FUNCTION
  lead_audit_internal.watch_detached(lead_audit.watch, lead_audit.watched_relation, oid[]) IS
  'Watches a relation that left a watched table under a new watch id.';

COMMENT ON FUNCTION lead_audit_internal.handle_detached(lead_audit.watch, oid) IS
  'Handles partitions and child tables that left a watched table. Returns those that it recorded '
  'as an entry.';

COMMENT ON FUNCTION lead_audit_internal.is_new_member(oid, lead_audit.watch, oid) IS
  'Whether a relation is below the root of a watched table and belongs to no watched table yet.';

COMMENT ON FUNCTION lead_audit_internal.handle_attached(lead_audit.watch, oid, oid[], text[]) IS
  'Handles partitions and child tables that joined a watched table. Returns those that it '
  'recorded as an entry.';

CREATE FUNCTION lead_audit_internal.handle_altered(
  watching lead_audit.watch, affected oid[], recorded oid[], rewritten boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed oid[] := array(
    SELECT m.relation
    FROM unnest(affected) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.class_of(r) c
    WHERE m.watch_id = watching.watch_id
      AND ((m.table_schema, m.table_name) <> (c.table_schema, c.table_name)
           OR m.shape IS NOT NULL
              AND (rewritten OR m.shape <> lead_audit_internal.shape_of(r)
                   OR m.key_attnums
                      <> (SELECT k.attnums FROM lead_audit_internal.primary_key_of(r) k)
                      AND NOT (m.is_restored AND m.key_attnums = '{}'))));
  known lead_audit.watched_relation;
  top record;
BEGIN
  FOR known IN
    SELECT m.* FROM unnest(changed) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    WHERE m.is_restored
  LOOP
    known.is_restored := false;
    PERFORM lead_audit_internal.put_relation(known);
  END LOOP;
  FOR top IN
    SELECT m.*, k.attnums, k.names, k.types
    FROM unnest(changed) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.primary_key_of(r) k
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(r) p WHERE p = ANY (changed))
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    IF NOT top.relation = ANY (recorded) THEN
      PERFORM lead_audit_internal.record_command(
        top.watch_id, top.relation, top.table_schema, top.table_name);
    END IF;
    IF top.is_root AND top.key_attnums IS NOT NULL
       AND (top.attnums, top.names, top.types)
           IS DISTINCT FROM (top.key_attnums, top.key_names, top.key_types) THEN
      INSERT INTO lead_audit.former_key
        (watch_id, until_entry, column_names, column_types, same_columns)
      VALUES (top.watch_id, lead_audit_internal.last_entry(), top.key_names, top.key_types,
              top.attnums = top.key_attnums)
      ON CONFLICT DO NOTHING;
    END IF;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.handle_altered(lead_audit.watch, oid[], oid[], boolean) FROM PUBLIC;

COMMENT ON FUNCTION
  lead_audit_internal.handle_altered(lead_audit.watch, oid[], oid[], boolean) IS
  'Records one entry for each watched table whose columns, key or name changed, unless the '
  'argument recorded already contains it.';

CREATE FUNCTION lead_audit_internal.is_guarded(relation oid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a
                 WHERE lead_audit_internal.is_complete($1, a.watch_id))
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.is_guarded(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.is_guarded(oid) IS
  'Whether the relation has all audit triggers with some watch id, and all are on.';

CREATE FUNCTION lead_audit_internal.handle_trigger_state(
  watching lead_audit.watch, root oid, affected oid[], effects text[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  new_state text;
BEGIN
  IF watching.state = 'on' AND EXISTS (
       SELECT FROM unnest(affected) r
       CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
       CROSS JOIN LATERAL lead_audit_internal.class_of(r)
       WHERE m.watch_id = watching.watch_id AND m.is_complete
         AND NOT lead_audit_internal.is_complete(r, m.watch_id)) THEN
    new_state := 'disabled';
  ELSIF watching.state = 'disabled' AND 'enabled_again' = ANY (effects) AND NOT EXISTS (
          SELECT FROM lead_audit_internal.members_of(root) m
          WHERE NOT lead_audit_internal.is_guarded(m)) THEN
    new_state := 'on';
  ELSE
    RETURN false;
  END IF;
  PERFORM lead_audit_internal.note_state(watching, new_state, root);
  RETURN true;
END
$$;

CREATE FUNCTION lead_audit_internal.reconcile_table(
  watching lead_audit.watch, affected oid[], effects text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root oid := (SELECT min(r::bigint)::oid
               FROM lead_audit_internal.roots_of(watching.watch_id) r
               CROSS JOIN LATERAL lead_audit_internal.class_of(r));
  recorded oid[] := '{}';
  known oid[];
  note lead_audit.watched_relation;
BEGIN
  IF watching.state IN ('on', 'disabled') AND root IS NOT NULL THEN
    IF effects && '{parted,found}' THEN
      recorded := recorded || array(SELECT lead_audit_internal.handle_detached(watching, root));
    END IF;
    IF effects && '{made,joined,found}' THEN
      recorded := recorded || array(
        SELECT lead_audit_internal.handle_attached(watching, root, affected, effects));
    END IF;
    IF lead_audit_internal.handle_trigger_state(watching, root, affected, effects) THEN
      recorded := recorded || affected;
    END IF;
    PERFORM lead_audit_internal.handle_altered(
      watching, affected, recorded,
      'rewritten' = ANY (effects) OR watching.state = 'on' AND 'disabled' = ANY (effects));
    PERFORM lead_audit_internal.handle_renamed_column(watching.watch_id, root);
  END IF;
  known := array(SELECT r FROM unnest(affected) r
                 WHERE (lead_audit_internal.relation_row(r)).watch_id = watching.watch_id);
  PERFORM lead_audit_internal.note_relations(watching.watch_id, affected);
  FOR note IN
    SELECT m.* FROM unnest(affected) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    WHERE m.watch_id = watching.watch_id AND r <> ALL (known)
  LOOP
    note.is_restored := true;
    PERFORM lead_audit_internal.put_relation(note);
  END LOOP;
  IF lead_audit_internal.renew_triggers(watching.watch_id, affected)
     AND root IS NOT NULL AND 'found' = ANY (effects) AND recorded = '{}' THEN
    PERFORM lead_audit_internal.record_command(
      watching.watch_id, root, watching.table_schema, watching.table_name);
  END IF;
END
$$;

CREATE FUNCTION lead_audit_internal.reconcile_command(is_drop boolean, effects text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(is_drop));
  concerned oid[] := affected;
  watching lead_audit.watch;
BEGIN
  IF NOT is_drop AND EXISTS (SELECT FROM lead_audit_internal.relations_of_command(is_drop) c
                             WHERE c.command <> 'CREATE TRIGGER') THEN
    effects := effects || '{enabled_again}'::text[];
  END IF;
  IF effects && '{made,joined}' THEN
    concerned := affected || array(
      SELECT DISTINCT a FROM unnest(affected) f
      CROSS JOIN LATERAL lead_audit_internal.ancestors_of(f) a);
  END IF;
  FOR watching IN
    SELECT w.* FROM lead_audit_internal.identities_among(concerned) i
    CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
    WHERE w.state <> 'changing' ORDER BY w.enabled_at
  LOOP
    PERFORM lead_audit_internal.reconcile_table(watching, affected, effects);
  END LOOP;
  PERFORM lead_audit_internal.renew_triggers(i, affected)
  FROM lead_audit_internal.identities_among(affected) i
  WHERE (lead_audit_internal.watch_row(i)).watch_id IS NULL;
END
$$;

REVOKE ALL ON FUNCTION
  lead_audit_internal.handle_trigger_state(lead_audit.watch, oid, oid[], text[]),
  lead_audit_internal.reconcile_table(lead_audit.watch, oid[], text[]),
  lead_audit_internal.reconcile_command(boolean, text[]) FROM PUBLIC;

COMMENT ON FUNCTION
  lead_audit_internal.handle_trigger_state(lead_audit.watch, oid, oid[], text[]) IS
  'Handles audit triggers that were disabled, dropped or enabled again. Returns whether it '
  'changed the state of the watched table.';

COMMENT ON FUNCTION lead_audit_internal.reconcile_table(lead_audit.watch, oid[], text[]) IS
  'Compares relations of a watched table with their last known state, records the differences as '
  'entries and updates that state. effects are those of command_effects(), and two more: '
  'enabled_again (triggers that are on again end the state disabled) and found (the caller is '
  'check_watched(), so anything may have happened).';

COMMENT ON FUNCTION lead_audit_internal.reconcile_command(boolean, text[]) IS
  'Calls reconcile_table() for each watched table that the current command touches.';

CREATE FUNCTION lead_audit_internal.handle_renamed_column(identity uuid, root oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
  renamed text := lead_audit_internal.column_name(
    root, (lead_audit_internal.relation_row(root)).soft_delete_attnum);
BEGIN
  IF watching.state = 'on' AND renamed <> watching.soft_delete_column THEN
    PERFORM lead_audit_internal.change_watch(
      identity, jsonb_build_object('soft_delete_column', renamed));
    PERFORM lead_audit_internal.make_triggers(root, identity, renamed);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.handle_renamed_column(uuid, oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.handle_renamed_column(uuid, oid) IS
  'Keeps a renamed soft-delete column as the soft-delete column.';

COMMENT ON FUNCTION lead_audit_internal.command_effects() IS
  'Returns the effects of the current command that only its text shows. made: it created a '
  'partition or child table. joined: a table became one. parted: a table no longer is one. '
  'disabled: it disabled triggers, maybe for a moment. rewritten: values of a column changed, or '
  'a foreign table may show other rows. '
  'written: it rewrote tables, and code that it called wrote to some.';

CREATE OR REPLACE FUNCTION lead_audit_internal.after_ddl(made_partition boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
BEGIN
  PERFORM lead_audit_internal.refuse_id_order();
  -- PostgreSQL loses rows that are written to a table during its rewrite. Entries would remain.
  IF 'written' = ANY (lead_audit_internal.command_effects()) THEN
    PERFORM lead_audit_internal.refuse_written(array(
      SELECT f FROM lead_audit_internal.affected_relations(false) f
      CROSS JOIN LATERAL lead_audit_internal.relation_row(f) m WHERE m.relation IS NOT NULL));
  END IF;
  FOR seen IN
    SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command(false) c
    CROSS JOIN LATERAL lead_audit_internal.relation_row(c.relation) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE c.trigger_id IS NOT NULL AND w.state = 'on'
  LOOP
    PERFORM lead_audit_internal.warn_of_earlier_triggers(seen.relation);
  END LOOP;
  IF 'joined' = ANY (lead_audit_internal.command_effects()) THEN
    PERFORM lead_audit_internal.merge_attached();
  END IF;
  PERFORM lead_audit_internal.reconcile_command(false, lead_audit_internal.command_effects());
END
$$;

COMMENT ON FUNCTION lead_audit_internal.after_ddl(boolean) IS
  'Work of the DDL guard at the end of a command. The argument has no effect.';

CREATE OR REPLACE FUNCTION lead_audit_internal.after_drop() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  watching lead_audit.watch;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    RETURN;
  END IF;
  FOR gone IN
    SELECT m.watch_id, m.relation, m.is_root, m.table_schema, m.table_name
    FROM pg_event_trigger_dropped_objects() d
    CROSS JOIN LATERAL lead_audit_internal.relation_row(d.objid) m
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND m.relation IS NOT NULL
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    watching := lead_audit_internal.watch_row(gone.watch_id);
    IF gone.is_root AND watching.state IN ('on', 'disabled') THEN
      PERFORM lead_audit_internal.note_state(watching, 'dropped', gone.relation);
    ELSIF gone.is_root THEN
      PERFORM lead_audit_internal.change_watch(gone.watch_id, '{"state": "dropped"}');
    ELSIF watching.state IN ('on', 'disabled') THEN
      -- A partition or child table of a table that stays.
      PERFORM lead_audit_internal.record_command(
        gone.watch_id, gone.relation, gone.table_schema, gone.table_name);
    END IF;
    PERFORM lead_audit_internal.forget_relation(gone.relation);
  END LOOP;
  PERFORM lead_audit_internal.reconcile_command(
    true, CASE WHEN EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                            WHERE d.object_type = 'user mapping')
            THEN '{rewritten}'::text[] ELSE '{}' END);
END
$$;

COMMENT ON FUNCTION lead_audit_internal.after_drop() IS
  'Work of the DDL guard after a command that drops objects: audit triggers, watched tables, '
  'partitions, columns and keys.';

CREATE OR REPLACE FUNCTION lead_audit_internal.before_attach(above oid, partition oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of(above) a
                    WHERE a.is_row LIMIT 1);
  own regclass;
BEGIN
  FOR own IN
    SELECT m FROM lead_audit_internal.members_of(partition) m
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a
    WHERE identity IS NOT NULL AND a.is_own AND a.watch_id <> identity
      AND a.trigger_name = '00_lead_audit_row'
  LOOP
    PERFORM lead_audit_internal.run_trigger_ddl(own, format(
      'ALTER TRIGGER "00_lead_audit_row" ON %s RENAME TO "00_lead_audit_row_before"', own));
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit_internal.merge_attached() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(false));
  attached record;
BEGIN
  FOR attached IN
    SELECT former.watch_id AS former, present.watch_id AS identity, array_agg(f) AS relations
    FROM unnest(affected) f
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) former
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) present
    WHERE former.trigger_name = '00_lead_audit_row_before'
      AND present.trigger_name = '00_lead_audit_row'
    GROUP BY 1, 2
  LOOP
    PERFORM lead_audit_internal.merge_watch(
      attached.former, attached.identity, attached.relations);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.before_attach(oid, oid),
  lead_audit_internal.merge_attached() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.before_attach(oid, oid) IS
  'Work of the DDL guard before a watched table becomes a partition of another watched table.';

COMMENT ON FUNCTION lead_audit_internal.merge_attached() IS
  'Merges watched tables that have become partitions of another watched table into it.';

CREATE VIEW lead_audit.watch_fault AS
WITH RECURSIVE known AS (
  SELECT m.watch_id, m.relation, m.is_root, m.is_complete, m.table_schema, m.table_name,
         c.oid IS NOT NULL AS is_there
  FROM lead_audit.watched_relation m
  JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state IN ('on', 'disabled')
  LEFT JOIN pg_catalog.pg_class c ON c.oid = m.relation
),
tree(watch_id, relation) AS (
  SELECT k.watch_id, k.relation FROM known k WHERE k.is_root AND k.is_there
  UNION
  SELECT t.watch_id, i.inhrelid FROM tree t
  JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
audit_trigger AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
triggers AS MATERIALIZED (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on,
         bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM audit_trigger a GROUP BY a.relation
)
SELECT k.watch_id, k.relation, 'dropped' AS fault FROM known k WHERE NOT k.is_there
UNION ALL
SELECT k.watch_id, k.relation, 'detached' FROM known k
WHERE k.is_there AND NOT k.is_root
  AND NOT EXISTS (SELECT FROM tree t WHERE (t.watch_id, t.relation) = (k.watch_id, k.relation))
UNION ALL
SELECT m.watch_id, m.relation,
       CASE WHEN k.relation IS NULL THEN 'not watched' ELSE 'trigger off' END
FROM tree m
JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
JOIN pg_catalog.pg_class c
  ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN triggers t ON t.relation = m.relation
LEFT JOIN known k ON (k.watch_id, k.relation) = (m.watch_id, m.relation)
WHERE NOT (coalesce(t.row_on, false) AND coalesce(t.truncate_on, c.relkind = 'f'))
  AND NOT EXISTS (
    SELECT FROM lead_audit.watched_relation o
    JOIN lead_audit.watch v
      ON v.watch_id = o.watch_id AND v.state NOT IN ('off', 'dropped', 'merged')
    WHERE o.relation = m.relation AND o.watch_id <> m.watch_id)
UNION
SELECT a.watch_id, a.relation, 'trigger not always'
FROM audit_trigger a
JOIN lead_audit.watch w ON w.watch_id = a.watch_id AND w.state IN ('on', 'disabled')
WHERE a.is_on AND NOT a.is_current
  AND a.trigger_name IN ('00_lead_audit_row', '00_lead_audit_truncate');

REVOKE ALL ON lead_audit.watch_fault FROM PUBLIC;

COMMENT ON VIEW lead_audit.watch_fault IS
  'Internal: differences from the state in which the DDL guard leaves watched tables. Empty '
  'unless a command got past the guard.';

COMMENT ON COLUMN lead_audit.watch_fault.watch_id IS 'Watched table.';

COMMENT ON COLUMN lead_audit.watch_fault.relation IS
  'Oid of the table, partition or child table with the fault.';

COMMENT ON COLUMN lead_audit.watch_fault.fault IS
  'dropped, detached, not watched, trigger off or trigger not always, as returned by '
  'check_watched().';

CREATE FUNCTION lead_audit_internal.repair_watched() RETURNS TABLE (relation text, fault text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found record;
  known lead_audit.watched_relation;
  watching lead_audit.watch;
BEGIN
  FOR found IN
    SELECT f.watch_id, array_agg(f.relation) AS relations
    FROM lead_audit.watch_fault f GROUP BY f.watch_id
  LOOP
    RETURN QUERY
      SELECT CASE WHEN c.table_name IS NULL THEN format('%I.%I', m.table_schema, m.table_name)
               ELSE f.relation::regclass::text END,
             f.fault
      FROM lead_audit.watch_fault f
      LEFT JOIN LATERAL lead_audit_internal.class_of(f.relation) c ON true
      LEFT JOIN LATERAL lead_audit_internal.relation_row(f.relation) m ON true
      WHERE f.watch_id = found.watch_id;
    -- A table that cannot be locked does not prevent the repair of the others.
    BEGIN
      FOR known IN
        SELECT m.* FROM unnest(found.relations) r
        CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
        WHERE m.watch_id = found.watch_id
          AND NOT EXISTS (SELECT FROM lead_audit_internal.class_of(r))
      LOOP
        watching := lead_audit_internal.watch_row(found.watch_id);
        IF known.is_root THEN
          PERFORM lead_audit_internal.note_state(watching, 'dropped', known.relation);
        ELSE
          PERFORM lead_audit_internal.record_command(
            found.watch_id, known.relation, known.table_schema, known.table_name);
        END IF;
        PERFORM lead_audit_internal.forget_relation(known.relation);
      END LOOP;
      watching := lead_audit_internal.watch_row(found.watch_id);
      PERFORM lead_audit_internal.reconcile_table(
        watching,
        array(SELECT m FROM lead_audit_internal.roots_of(found.watch_id) r
              CROSS JOIN LATERAL lead_audit_internal.members_of(r) m
              UNION
              SELECT r FROM unnest(found.relations) r
              CROSS JOIN LATERAL lead_audit_internal.class_of(r)),
        '{found}');
      -- Triggers that a restore left disabled have never been on.
      watching := lead_audit_internal.watch_row(found.watch_id);
      IF watching.state = 'on' AND EXISTS (SELECT FROM lead_audit.watch_fault f
                                           WHERE f.watch_id = found.watch_id
                                             AND f.fault <> 'trigger not always') THEN
        PERFORM lead_audit_internal.note_state(watching, 'disabled', r)
        FROM lead_audit_internal.roots_of(found.watch_id) r;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      RETURN QUERY SELECT format('%I.%I', w.table_schema, w.table_name), 'locked'
      FROM lead_audit_internal.watch_row(found.watch_id) w;
    WHEN object_not_in_prerequisite_state THEN
      -- The worker refuses code of a table's owner, which PostgreSQL would call for the repair.
      RETURN QUERY SELECT format('%I.%I', w.table_schema, w.table_name), 'not repaired'
      FROM lead_audit_internal.watch_row(found.watch_id) w;
    END;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.repair_watched() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.repair_watched() IS 'Does the work of check_watched().';

CREATE FUNCTION lead_audit.check_watched() RETURNS TABLE (relation text, fault text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'check_watched_wrapper';

REVOKE ALL ON FUNCTION lead_audit.check_watched() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.check_watched() IS
  'Compares each watched table with the catalog, repairs and records what differs, and returns '
  'it. Faults: not watched (a partition or child table had no audit triggers; now it has), '
  'detached (it now has its own watch id), dropped, trigger off (the state of the table is now '
  'disabled), trigger not always (it did not fire for logical replication; now it does), locked '
  '(a session holds a lock: the other faults of this watched table are not repaired yet), not '
  'repaired (found by the worker, which does not run code of the owner of a table: call this '
  'function). Returns no row if there is no fault. The background worker does the same after '
  'DDL and every minute.';

COMMENT ON FUNCTION lead_audit_internal.guard_ddl() IS
  'Event trigger: calls refuse_ddl(), after_ddl(), after_drop() and before_attach() with the '
  'rights of the extension''s owner.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX',
               'CREATE SCHEMA', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER SEQUENCE',
               'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA',
               'ALTER SERVER', 'ALTER FOREIGN DATA WRAPPER', 'CREATE USER MAPPING',
               'ALTER USER MAPPING',
               'CREATE VIEW', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW')
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_ddl IS
  'Notices audit triggers that are disabled or replaced, watched tables that are renamed or '
  'altered, partitions that join or leave, and changes of what a foreign table shows.';

CREATE EVENT TRIGGER lead_audit_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE')
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_start IS
  'Prepares a watched table that is about to become a partition of another.';

CREATE EVENT TRIGGER lead_audit_drop ON sql_drop
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_drop IS
  'Notices audit triggers and watched tables that are dropped.';

COMMENT ON FUNCTION lead_audit.seal() IS
  'Appends the entries of finished transactions to the tree, and the entries that the calling '
  'transaction has written so far. Writes one checkpoint, or several for many entries, and '
  'publishes them when the transaction commits. Returns the number of leaves in the tree. The '
  'background worker does the same every lead_audit.seal_interval. Until the calling transaction '
  'ends, other sealing waits. Writers never wait.';

COMMENT ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) IS
  'Returns the proof that an entry is in the tree, as a C2SP tlog-proof with the newest '
  'checkpoint or the one of tree_size. Errors: P0002 if there is no such entry or checkpoint, '
  '55000 if the entry is not sealed yet, 22023 if the tree of that size does not contain the '
  'entry.';

COMMENT ON FUNCTION lead_audit.consistency_proof(bigint, bigint) IS
  'Returns the proof that the tree of from_size leaves is the beginning of the tree of to_size '
  'leaves, by default the whole tree. The proof is the hashes of RFC 6962, section 2.1.2, in '
  'base64, one on each line. It is empty if the sizes are equal or from_size is 0. Error 22023 if '
  'the tree never had one of the sizes.';

COMMENT ON FUNCTION lead_audit.latest_checkpoint() IS
  'Returns the newest checkpoint as it was published: a C2SP signed note, or the unsigned text. '
  'NULL before the first.';

COMMENT ON FUNCTION lead_audit.origin() IS
  'Returns the name of this log in its next checkpoint: the name of the signing key, else '
  'lead_audit.origin, else lead_audit/ and the log id.';

COMMENT ON FUNCTION lead_audit.verifier_key() IS
  'Returns the public key that belongs to lead_audit.signing_key_file, in the form that verifiers '
  'take. NULL if checkpoints are not signed. An auditor must get the key from another source, '
  'because the database cannot be trusted with it.';

CREATE OR REPLACE FUNCTION lead_audit.verify(
  from_id bigint DEFAULT NULL, to_id bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL,
  to_time timestamptz DEFAULT NULL) RETURNS TABLE (id bigint, fault text, detail text)
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'verify_wrapper';

COMMENT ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) IS
  'Checks all entries and the whole tree. With arguments, checks the entries in a range of ids or '
  'times, both ends included. Returns one row for each fault: the id of the entry (NULL if the '
  'fault is not in one entry), the kind of fault, and its detail. No row means that the database '
  'shows no tampering. An entry that is not sealed yet is no fault. The check can be cancelled, '
  'and reports its progress in a NOTICE every few seconds.';

COMMENT ON FUNCTION lead_audit.verify_entry(bigint) IS
  'Whether the entry is unchanged since it was written and, if it is sealed, since it was sealed. '
  'False if there is no such entry.';

COMMENT ON TABLE lead_audit.queue_position IS
  'Internal: last record of the queue that was written in this database. With it, no record is '
  'written twice.';

COMMENT ON COLUMN lead_audit.queue_position.queue IS 'Identity of the queue.';

CREATE TRIGGER own_writes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
  ON lead_audit.queue_position
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_others();

ALTER TABLE lead_audit.queue_position ENABLE ALWAYS TRIGGER own_writes_only;

COMMENT ON TRIGGER own_writes_only ON lead_audit.queue_position IS
  'Refuses writes by others than lead_audit.';

CREATE OR REPLACE FUNCTION lead_audit.queue(
  OUT database oid, OUT database_name text, OUT queued bigint, OUT written bigint,
  OUT dropped bigint, OUT waiting bigint, OUT worker_pid integer) RETURNS SETOF record
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'queue_wrapper';

COMMENT ON FUNCTION lead_audit.queue() IS
  'Returns one row for each database with the extension: the number of failed statements since '
  'the server started (queued), how many of them are entries (written) or only in the server''s '
  'log (dropped), the bytes that wait in the queue, and the process id of the worker. Returns no '
  'row unless the library is preloaded.';

CREATE OR REPLACE FUNCTION lead_audit_internal.own_queue(
  OUT queued bigint, OUT written bigint, OUT dropped bigint) RETURNS SETOF record
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'own_queue_wrapper';

COMMENT ON FUNCTION lead_audit_internal.own_queue() IS
  'Returns the counts of lead_audit.queue() for this database, for lead_audit.stats.';

CREATE FUNCTION lead_audit_internal.quarantined() RETURNS bigint
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'quarantined_wrapper';

COMMENT ON FUNCTION lead_audit_internal.quarantined() IS
  'Returns the number of records of this database during which a worker died, for '
  'lead_audit.stats.';

COMMENT ON FUNCTION lead_audit.status() IS
  'Returns the parts of lead_audit, whether each is on in this database, the reason if it is off, '
  'and the remedy: a line for postgresql.conf, or a command.';

COMMENT ON FUNCTION lead_audit.key_hash(uuid, text) IS
  'Returns the hash by which the entries of a row are found (docs/FORMAT.md).';

COMMENT ON FUNCTION lead_audit.canonical_json(jsonb) IS
  'Returns the text under which entries store a value (docs/FORMAT.md).';

CREATE OR REPLACE FUNCTION lead_audit_internal.key_columns(relation regclass) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN p.attnums <> '{}' THEN p.attnums ELSE coalesce(
    (SELECT CASE WHEN count(*) = max(cardinality(f.column_names))
              THEN array_agg(a.attnum ORDER BY a.attnum) END
     FROM (SELECT k.column_names FROM lead_audit.former_key k
           WHERE k.watch_id = lead_audit_internal.watch_of($1) AND k.column_names <> '{}'
           ORDER BY k.until_entry DESC LIMIT 1) f
     JOIN pg_attribute a
       ON a.attrelid = $1 AND a.attnum > 0 AND a.attname = ANY (f.column_names)), '{}') END
  FROM lead_audit_internal.primary_key_of($1) p
$$;

COMMENT ON FUNCTION lead_audit_internal.key_columns(regclass) IS
  'Returns the numbers of the primary key''s columns. Without a primary key, those of the last '
  'one while the table was watched.';

CREATE OR REPLACE FUNCTION lead_audit_internal.key_of(
  relation regclass, key_columns smallint[], column_names text[], column_values text[])
  RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'key_of_columns_wrapper';

COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, smallint[], text[], text[]) IS
  'Returns the row_key text of the row with these values in the key columns. NULL if column_names '
  'differs from the names of key_columns.';

CREATE OR REPLACE FUNCTION lead_audit_internal.key_of(relation regclass, key text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.key_of(
    $1, lead_audit_internal.key_columns($1), NULL, ARRAY[$2])
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.key_of(relation regclass, key jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT lead_audit_internal.key_of($1, lead_audit_internal.key_columns($1),
                                       array_agg(k.key), array_agg(k.value))
     FROM jsonb_each_text($2) k),
    lead_audit.canonical_json($2))
$$;

COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, text) IS
  'Returns the row_key text of the row whose only key column has this value. Errors: 42P10 if '
  'there is no key column or more than one, and those of the column''s type for an invalid value.';

COMMENT ON FUNCTION lead_audit_internal.key_of(regclass, jsonb) IS
  'Returns the row_key text of a key that is written as {"column": value, ...}. If the columns '
  'are not those of the primary key, they count as an earlier primary key.';

COMMENT ON FUNCTION lead_audit_internal.value_as(regclass, text, text) IS
  'Returns the JSON that entries of the relation have for a value of this type. NULL if the type '
  'has no such value.';

CREATE OR REPLACE FUNCTION lead_audit_internal.identities_of(relation regclass)
RETURNS TABLE (watch_id uuid, until_entry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE known(watch_id, until_entry) AS (
    SELECT w, 9223372036854775807 FROM lead_audit_internal.watch_of($1) w WHERE w IS NOT NULL
    UNION
    SELECT e.earlier_id, e.until_entry FROM known k
    JOIN lead_audit.earlier_identity e
      ON e.watch_id = k.watch_id AND e.until_entry <= k.until_entry
  )
  SELECT k.watch_id, max(k.until_entry) FROM known k GROUP BY k.watch_id
$$;

COMMENT ON FUNCTION lead_audit_internal.identities_of(regclass) IS
  'Returns the watch ids under which the rows of a table have entries, each with its last entry. '
  'A partition that was attached or detached has more than one.';

CREATE OR REPLACE FUNCTION lead_audit_internal.former_spellings(
  relation regclass, row_key text, identity uuid, until bigint)
RETURNS TABLE (spelling jsonb, is_key boolean, after_entry bigint, until_entry bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := row_key::jsonb;
  present record;
  later_names text[];
  former record;
BEGIN
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types
  INTO present
  FROM pg_attribute a
  WHERE a.attrelid = relation
    AND a.attnum = ANY (lead_audit_internal.key_columns(relation));
  IF NOT (key ?& present.names AND present.names @> array(SELECT jsonb_object_keys(key))) THEN
    RETURN; -- A key of other columns than the present one has only one spelling.
  END IF;
  IF (SELECT p.attnums = '{}' FROM lead_audit_internal.primary_key_of(relation) p) THEN
    RETURN QUERY
      SELECT key, false, coalesce(max(f.until_entry), 0), until
      FROM lead_audit.former_key f WHERE f.watch_id = identity AND f.until_entry <= until;
  END IF;
  spelling := key;
  is_key := true;
  later_names := present.names;
  FOR former IN
    SELECT f.*, lag(f.until_entry, 1, 0::bigint) OVER (ORDER BY f.until_entry) AS after
    FROM lead_audit.former_key f
    WHERE f.watch_id = identity AND f.until_entry <= until ORDER BY f.until_entry DESC
  LOOP
    is_key := is_key AND former.same_columns OR former.column_names = later_names;
    IF is_key THEN
      later_names := former.column_names;
      SELECT jsonb_object_agg(c.former_name, c.value) INTO spelling
      FROM (SELECT u.former_name,
                   CASE WHEN u.former_type = u.type OR jsonb_typeof(key -> u.name) = 'null'
                     THEN key -> u.name
                     ELSE lead_audit_internal.value_as(
                       relation, u.former_type, key ->> u.name)::jsonb END AS value
            FROM unnest(former.column_names, former.column_types, present.names, present.types)
              u(former_name, former_type, name, type)) c
      HAVING count(c.value) = count(*);
      EXIT WHEN spelling IS NULL; -- No value of the former type can have become this one.
    END IF;
    after_entry := former.after;
    until_entry := former.until_entry;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.former_spellings(regclass, text, uuid, bigint) IS
  'Returns the spellings of row_key while the key''s columns had other names or types, by ranges '
  'of entries, and whether these columns were the key at that time.';

CREATE OR REPLACE FUNCTION lead_audit_internal.entries_of(relation regclass, row_key text)
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    SELECT i.watch_id, row_key AS spelling, true AS is_key, 0::bigint AS after_entry,
           i.until_entry
    FROM lead_audit_internal.identities_of(relation) i
    UNION ALL
    SELECT i.watch_id, lead_audit.canonical_json(f.spelling), f.is_key, f.after_entry,
           f.until_entry
    FROM lead_audit_internal.identities_of(relation) i
    CROSS JOIN LATERAL
      lead_audit_internal.former_spellings(relation, row_key, i.watch_id, i.until_entry) f
  LOOP
    IF wanted.is_key THEN
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling)
          AND e.watch_id = wanted.watch_id AND e.row_key::text = wanted.spelling
          AND e.id <= wanted.until_entry
        UNION ALL
        SELECT e.id FROM lead_audit.entry e
        WHERE e.previous_key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling)
          AND e.watch_id = wanted.watch_id AND e.id <= wanted.until_entry;
    ELSE
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.id > wanted.after_entry AND e.id <= wanted.until_entry
          AND e.watch_id = wanted.watch_id AND e.row_values IS NOT NULL
          AND (lead_audit_internal.has_values(
                 lead_audit_internal.as_jsonb(e.row_values), wanted.spelling::jsonb)
               OR lead_audit_internal.has_values(
                    lead_audit_internal.new_values_of(e.row_values, e.changed_values),
                    wanted.spelling::jsonb));
    END IF;
  END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.has_values(row_values jsonb, wanted jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and($1 -> k.key = k.value) FROM jsonb_each($2) k
$$;

COMMENT ON FUNCTION lead_audit_internal.entries_of(regclass, text) IS
  'Returns the ids of the entries of one row, those in which it got or lost this key included. An '
  'id can appear twice.';

COMMENT ON FUNCTION lead_audit_internal.has_values(jsonb, jsonb) IS
  'Whether a row has all of these values.';

CREATE OR REPLACE FUNCTION lead_audit.history(relation regclass, key text) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l
  WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2)))
  ORDER BY l.id
$$;

CREATE OR REPLACE FUNCTION lead_audit.history(relation regclass, key jsonb) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l
  WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2)))
  ORDER BY l.id
$$;

COMMENT ON FUNCTION lead_audit.history(regclass, text) IS
  'Returns the entries of one row in order, by its primary key. Finds them also under former '
  'names of the table and of the key''s columns.';

COMMENT ON FUNCTION lead_audit.history(regclass, jsonb) IS
  'Returns the entries of one row in order, by a primary key that is written as {"column": value, '
  '...}. Otherwise like history(regclass, text).';

CREATE OR REPLACE FUNCTION lead_audit_internal.summary_of(
  relation regclass, row_key text, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*), count(*) FILTER (WHERE e.operation = 'INSERT' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'UPDATE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'DELETE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.outcome = 'failed'),
         min(e.occurred_at), max(e.occurred_at), count(DISTINCT e.user_id),
         bool_and(lead_audit.verify_entry(e.id))
  FROM lead_audit.entry e WHERE e.id IN (SELECT lead_audit_internal.entries_of($1, $2))
$$;

COMMENT ON FUNCTION lead_audit_internal.summary_of(regclass, text) IS
  'Does the work of summary().';

CREATE OR REPLACE FUNCTION lead_audit.summary(
  relation regclass, key text, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;

CREATE OR REPLACE FUNCTION lead_audit.summary(
  relation regclass, key jsonb, OUT total bigint, OUT created bigint, OUT updated bigint,
  OUT deleted bigint, OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz,
  OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;

COMMENT ON FUNCTION lead_audit.summary(regclass, text) IS
  'Returns the counts of one row''s entries (total; created, updated and deleted that succeeded; '
  'failed), the times of its first and last event, the number of distinct user_ids, and whether '
  'all of its entries verify (NULL if it has none).';

COMMENT ON FUNCTION lead_audit.summary(regclass, jsonb) IS
  'Returns the same counts as summary(regclass, text), for a primary key that is written as '
  '{"column": value, ...}.';

CREATE OR REPLACE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s)
         + (SELECT coalesce(sum(u.entries), 0)::bigint FROM lead_audit.unwritten u)
         AS entries_not_written,
       (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s)
         AS last_id,
       (SELECT count(*) FROM lead_audit.watched w WHERE w.row_trigger_on) AS tables_watched,
       pg_catalog.pg_total_relation_size('lead_audit.entry') AS bytes,
       q.queued, q.written, q.dropped,
       CASE WHEN n.new <= 100000 THEN n.new + l.late
            ELSE (SELECT s.last_value FROM lead_audit.entry_id_seq s) - t.looked_to
            END AS unsealed_entries,
       least(n.oldest, l.oldest) AS oldest_unsealed,
       pg_catalog.clock_timestamp() - least(n.oldest, l.oldest) AS seal_lag,
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint
        FROM lead_audit.open_gap g, unnest(g.ids) r) AS open_ids,
       (SELECT min(g.seen_at) FROM lead_audit.open_gap g) AS open_since,
       t.tree_size,
       c.sealed_at AS last_checkpoint_at,
       c.note LIKE E'%\n\n%' AS last_checkpoint_signed,
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error,
       lead_audit_internal.quarantined() AS quarantined
FROM lead_audit_internal.own_queue() q
LEFT JOIN (SELECT * FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1) t
  ON true
LEFT JOIN LATERAL (
  SELECT c.sealed_at, c.note FROM lead_audit.checkpoint c ORDER BY c.tree_size DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
  SELECT (SELECT count(*) FROM (
            SELECT FROM lead_audit.entry e WHERE e.id > t.looked_to LIMIT 100001) e) AS new,
         (SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id > t.looked_to
          ORDER BY e.id LIMIT 1) AS oldest
) n ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS late, min(e.occurred_at) AS oldest
  FROM lead_audit.open_gap g, unnest(g.ids) r, LATERAL (
    SELECT e.occurred_at FROM lead_audit.entry e
    WHERE e.id >= lower(r) AND e.id < upper(r) LIMIT 100001) e
  WHERE EXISTS (SELECT FROM unnest(g.in_progress) x
                WHERE pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot()))
) l ON true;

COMMENT ON COLUMN lead_audit.stats.entries_not_written IS
  'Number of entries that committed transactions lack, because writing failed while '
  'lead_audit.on_error was warn.';

COMMENT ON COLUMN lead_audit.stats.last_id IS
  'Highest id that was given out. Rolled-back transactions leave ids unused.';

COMMENT ON COLUMN lead_audit.stats.tables_watched IS 'Number of tables whose row trigger is on.';

COMMENT ON COLUMN lead_audit.stats.bytes IS 'Size of the audit trail with its indexes, in bytes.';

COMMENT ON COLUMN lead_audit.stats.queued IS
  'Number of failed statements of this database since the server started that went into the '
  'queue. 0 unless the library is preloaded.';

COMMENT ON COLUMN lead_audit.stats.written IS 'Number of these that are entries now.';

COMMENT ON COLUMN lead_audit.stats.dropped IS
  'Number of failed statements without an entry, because the queue was full or no worker ran. The '
  'server''s log has each of them in full.';

COMMENT ON COLUMN lead_audit.stats.unsealed_entries IS
  'Number of entries that no checkpoint covers yet. Above 100,000 it is the number of ids, those '
  'of rolled-back transactions included. Entries of open transactions are not visible: see '
  'open_ids.';

COMMENT ON COLUMN lead_audit.stats.oldest_unsealed IS 'Time of the oldest unsealed entry.';

COMMENT ON COLUMN lead_audit.stats.seal_lag IS 'Age of the oldest unsealed entry.';

COMMENT ON COLUMN lead_audit.stats.open_ids IS
  'Number of ids whose entries may still commit, because transactions were open when sealing '
  'looked. An upper bound.';

COMMENT ON COLUMN lead_audit.stats.open_since IS 'Time at which sealing saw the oldest open ids.';

COMMENT ON COLUMN lead_audit.stats.tree_size IS 'Number of leaves in the tree.';

COMMENT ON COLUMN lead_audit.stats.last_checkpoint_at IS 'Time of the newest checkpoint.';

COMMENT ON COLUMN lead_audit.stats.publishing_errors IS
  'Number of failed attempts to publish a checkpoint.';

COMMENT ON COLUMN lead_audit.stats.last_publishing_error_at IS 'Time of the last failed attempt.';

COMMENT ON COLUMN lead_audit.stats.last_publishing_error IS 'Message of the last failed attempt.';

COMMENT ON COLUMN lead_audit.stats.quarantined IS
  'Number of dropped records during which a worker died. They are not tried again.';

COMMENT ON FUNCTION lead_audit_internal.watch_leads() IS 'Last step of CREATE EXTENSION.';

-- In version 1.1, the digest of a table's columns also covers the attributes of composite types.
-- This statement stores the new digests, because with the old digest of a table, the next DDL
-- command on the table would be recorded as a change of columns.
SELECT lead_audit_internal.note_relations(w.watch_id, NULL)
FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');

-- Sets the audit triggers of version 1.0 to ENABLE ALWAYS. In version 1.0, the state of these
-- triggers is plain ENABLE. A change of a table's triggers locks the table against writes until
-- the update ends. If a table is in use, its triggers keep the state plain ENABLE until
-- check_watched() changes the state. The lock timeout is shorter than deadlock_timeout, so that
-- PostgreSQL does not end a writer's transaction by a deadlock.
SET LOCAL lock_timeout = '500ms';
DO $$
DECLARE
  watching lead_audit.watch;
BEGIN
  FOR watching IN SELECT * FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled') LOOP
    FOR attempt IN 1..3 LOOP
      BEGIN
        PERFORM lead_audit_internal.renew_triggers(watching.watch_id, array(
          SELECT DISTINCT a.relation FROM lead_audit.audit_trigger a
          WHERE a.watch_id = watching.watch_id));
        EXIT;
      EXCEPTION WHEN lock_not_available THEN
        IF attempt = 3 THEN
          RAISE WARNING 'the audit triggers of table %.% are still those of version 1.0',
            quote_ident(watching.table_schema), quote_ident(watching.table_name)
            USING DETAIL = 'The table is in use.',
                  HINT = 'The worker changes them later. Without it, call '
                         'lead_audit.check_watched().';
        END IF;
      END;
    END LOOP;
  END LOOP;
END
$$;
