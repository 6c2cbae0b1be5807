-- From 0.1 to 0.2. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- What leads from 0.1 to 0.2 and cannot be worked out from sql/*.sql: see scripts/upgrade_script.py.
ALTER TABLE lead_audit.watch DROP CONSTRAINT watch_state_check;
ALTER TABLE lead_audit.watch ADD CONSTRAINT watch_state_check CHECK (state IN ('changing', 'on', 'disabled', 'off', 'dropped', 'merged'));
ALTER TABLE lead_audit.watch ADD COLUMN replica boolean NOT NULL DEFAULT false;
ALTER TABLE lead_audit.watched_relation
  ADD COLUMN is_complete boolean NOT NULL DEFAULT false,
  ADD COLUMN shape bytea,
  ADD COLUMN key_attnums smallint[],
  ADD COLUMN key_names text[],
  ADD COLUMN key_types text[],
  ADD COLUMN is_restored boolean NOT NULL DEFAULT false;

-- As sql/30_entry.sql has it.
DO $$
BEGIN
  ALTER TABLE lead_audit.entry ALTER COLUMN row_values SET COMPRESSION lz4, ALTER COLUMN changed_values SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;

DROP FUNCTION lead_audit.key_of(regclass, text[], text[]);

COMMENT ON COLUMN lead_audit.watch.state IS 'on; disabled (a trigger was switched off or dropped by hand); off (by disable()); dropped (the table is gone); merged (it became a partition of another watched table); changing (only within enable() and disable()).';

COMMENT ON COLUMN lead_audit.watch.replica IS 'Whether rows are recorded, too, that logical replication or session_replication_role = replica brings.';

COMMENT ON TABLE lead_audit.watched_relation IS 'Internal: watched tables, their partitions and child tables by oid, so that a rename, a drop and a detached partition are noticed.';

COMMENT ON COLUMN lead_audit.watched_relation.is_root IS 'Whether it is that table itself, not one of its partitions or child tables.';

COMMENT ON COLUMN lead_audit.watched_relation.is_complete IS 'Whether its audit triggers were all there and on.';

COMMENT ON COLUMN lead_audit.watched_relation.shape IS 'Digest of its columns (shape_of()), by which a change of them is noticed.';

COMMENT ON COLUMN lead_audit.watched_relation.key_attnums IS 'Numbers of the primary key''s columns, ascending; empty without a primary key.';

COMMENT ON COLUMN lead_audit.watched_relation.key_names IS 'Names of the same columns.';

COMMENT ON COLUMN lead_audit.watched_relation.key_types IS 'Types of the same columns.';

COMMENT ON COLUMN lead_audit.watched_relation.is_restored IS 'Whether a restore brought its triggers, and may yet bring its primary key; until the next change.';

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

CREATE FUNCTION lead_audit.refuse_change_by_others() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

REVOKE ALL ON FUNCTION lead_audit.refuse_change_by_others() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.refuse_change_by_others() IS 'Keeps what is known of watched tables from being changed by roles that were given rights on everything, as by pg_write_all_data. Error 42501.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watch
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change_by_others();

ALTER TABLE lead_audit.watch ENABLE ALWAYS TRIGGER own_changes_only;

COMMENT ON TRIGGER own_changes_only ON lead_audit.watch IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.watched_relation
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change_by_others();

ALTER TABLE lead_audit.watched_relation ENABLE ALWAYS TRIGGER own_changes_only;

COMMENT ON TRIGGER own_changes_only ON lead_audit.watched_relation IS 'Refuses changes by others than lead_audit, and TRUNCATE to everybody.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.earlier_identity
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change_by_others();

ALTER TABLE lead_audit.earlier_identity ENABLE ALWAYS TRIGGER own_changes_only;

COMMENT ON TRIGGER own_changes_only ON lead_audit.earlier_identity IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';

CREATE TRIGGER own_changes_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lead_audit.former_key
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change_by_others();

ALTER TABLE lead_audit.former_key ENABLE ALWAYS TRIGGER own_changes_only;

COMMENT ON TRIGGER own_changes_only ON lead_audit.former_key IS 'Refuses changes by others than lead_audit, and DELETE and TRUNCATE to everybody.';

COMMENT ON COLUMN lead_audit.entry.operation IS 'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that was there when watching began) or DDL; of failures also MERGE, COPY, COMMIT (a deferred check of several operations) and ROLLBACK.';

COMMENT ON COLUMN lead_audit.entry.outcome IS 'ok, failed, rolled_back (what a transaction had written that was rolled back) or gap (it took place, but its entry could not be written).';

COMMENT ON COLUMN lead_audit.entry.details IS 'What only some events have: {"row_count": n} of a TRUNCATE; {"moved_from": {"table_name": ..., "table_schema": ...}} of an UPDATE that moved the row to another partition; {"command": ..., "statement_length": n} of a DDL whose text was cut; constraint, column and parameters of a failure; {"written": [...]} of a transaction that was rolled back.';

CREATE TABLE lead_audit.checkpoint (
  tree_size bigint NOT NULL PRIMARY KEY CHECK (tree_size > 0),
  sealed_at timestamptz NOT NULL,
  root bytea NOT NULL CHECK (pg_catalog.octet_length(root) = 32),
  entry_ids int8multirange NOT NULL,
  note text NOT NULL
);

REVOKE ALL ON lead_audit.checkpoint FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.checkpoint', '');

COMMENT ON TABLE lead_audit.checkpoint IS 'What the log has said of its tree, and when. The ids of the entries that a checkpoint added stand in ascending order in the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.tree_size IS 'Leaves in the tree.';

COMMENT ON COLUMN lead_audit.checkpoint.sealed_at IS 'Wall-clock time of the sealing. Information only: it is in neither root nor note.';

COMMENT ON COLUMN lead_audit.checkpoint.root IS 'Root of the tree, RFC 6962 section 2.1.';

COMMENT ON COLUMN lead_audit.checkpoint.entry_ids IS 'Ids of the entries that were added to the tree since the checkpoint before.';

COMMENT ON COLUMN lead_audit.checkpoint.note IS 'The C2SP tlog-checkpoint as it left the database: a signed note or, without lead_audit.signing_key_file, the unsigned text.';

CREATE TABLE lead_audit.leaf_range (
  first_id bigint NOT NULL PRIMARY KEY,
  last_id bigint NOT NULL CHECK (last_id >= first_id),
  first_leaf bigint NOT NULL
);

REVOKE ALL ON lead_audit.leaf_range FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.leaf_range', '');

COMMENT ON TABLE lead_audit.leaf_range IS 'Internal: which leaves of the tree the entries with these ids are.';

COMMENT ON COLUMN lead_audit.leaf_range.first_id IS 'The first id.';

COMMENT ON COLUMN lead_audit.leaf_range.last_id IS 'The last id; all ids between are there too.';

COMMENT ON COLUMN lead_audit.leaf_range.first_leaf IS 'Index of the first id''s leaf, from 0; the others follow.';

CREATE TABLE lead_audit.tree_tile (
  index bigint NOT NULL,
  level smallint NOT NULL,
  hashes bytea NOT NULL,
  PRIMARY KEY (level, index)
);

ALTER TABLE lead_audit.tree_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

REVOKE ALL ON lead_audit.tree_tile FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_tile', '');

COMMENT ON TABLE lead_audit.tree_tile IS 'The full tiles of the tree (C2SP tlog-tiles, height 8), 256 hashes of 32 bytes each.';

COMMENT ON COLUMN lead_audit.tree_tile.index IS 'Place in the level, from 0.';

COMMENT ON COLUMN lead_audit.tree_tile.level IS '0: leaf hashes; n + 1: the roots of full tiles of level n.';

COMMENT ON COLUMN lead_audit.tree_tile.hashes IS 'The hashes, one after the other.';

CREATE TABLE lead_audit.tree_edge (
  index bigint NOT NULL,
  level smallint NOT NULL PRIMARY KEY,
  hashes bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000);

ALTER TABLE lead_audit.tree_edge ALTER COLUMN hashes SET STORAGE EXTERNAL;

REVOKE ALL ON lead_audit.tree_edge FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree_edge', '');

COMMENT ON TABLE lead_audit.tree_edge IS 'The last tile of each level, which has fewer than 256 hashes.';

COMMENT ON COLUMN lead_audit.tree_edge.index IS 'Place in the level, from 0.';

COMMENT ON COLUMN lead_audit.tree_edge.level IS 'As in tree_tile.';

COMMENT ON COLUMN lead_audit.tree_edge.hashes IS 'The hashes so far, one after the other.';

CREATE TABLE lead_audit.tree (
  log_id uuid NOT NULL PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  tree_size bigint NOT NULL DEFAULT 0,
  looked_to bigint NOT NULL DEFAULT 0,
  open_gaps integer NOT NULL DEFAULT 0,
  awaits_restore boolean NOT NULL DEFAULT false,
  waits_for bigint[] NOT NULL DEFAULT '{}',
  home text,
  publishing_errors bigint NOT NULL DEFAULT 0,
  last_publishing_error_at timestamptz,
  last_publishing_error text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

REVOKE ALL ON lead_audit.tree FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.tree', '');

COMMENT ON TABLE lead_audit.tree IS 'The log''s identity and the state of its sealing. Of several rows the one with the largest tree counts, then the oldest.';

COMMENT ON COLUMN lead_audit.tree.log_id IS 'Identity of the log. It survives dump and restore, and is the last part of the default origin.';

COMMENT ON COLUMN lead_audit.tree.created_at IS 'When this row was made.';

COMMENT ON COLUMN lead_audit.tree.tree_size IS 'Leaves in the tree.';

COMMENT ON COLUMN lead_audit.tree.looked_to IS 'Ids up to this one have been looked at: they are in the tree, in an open gap, or belong to rolled-back transactions.';

COMMENT ON COLUMN lead_audit.tree.open_gaps IS 'Number of rows in open_gap.';

COMMENT ON COLUMN lead_audit.tree.awaits_restore IS 'CREATE EXTENSION was run by a restore, which will bring the tree: nothing is sealed until it has, or until a new entry shows that it will not.';

COMMENT ON COLUMN lead_audit.tree.waits_for IS 'Transactions whose end makes it worth while to look at open gaps again.';

COMMENT ON COLUMN lead_audit.tree.home IS 'Where the ids of transactions mean something: system identifier/oid of the database.';

COMMENT ON COLUMN lead_audit.tree.publishing_errors IS 'How often a checkpoint could not be published.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error_at IS 'When that happened last.';

COMMENT ON COLUMN lead_audit.tree.last_publishing_error IS 'Why.';

INSERT INTO lead_audit.tree (awaits_restore) VALUES (pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.=) 'off');

CREATE TABLE lead_audit.open_gap (
  first_id bigint NOT NULL PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  ids int8multirange NOT NULL,
  in_progress bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE INDEX open_gap_in_progress_idx ON lead_audit.open_gap USING gin (in_progress) WITH (fastupdate = off);

REVOKE ALL ON lead_audit.open_gap FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.open_gap', '');

COMMENT ON TABLE lead_audit.open_gap IS 'Internal: ids up to looked_to that had no visible entry when they were looked at, and whose transaction may still commit.';

COMMENT ON COLUMN lead_audit.open_gap.first_id IS 'The lowest of the ids when the gap was seen first.';

COMMENT ON COLUMN lead_audit.open_gap.seen_at IS 'When that was.';

COMMENT ON COLUMN lead_audit.open_gap.ids IS 'The ids.';

COMMENT ON COLUMN lead_audit.open_gap.in_progress IS 'The transactions that they may belong to: those in progress when they were looked at first, and still when they were last.';

CREATE FUNCTION lead_audit.guard_tree() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_tree';

REVOKE ALL ON FUNCTION lead_audit.guard_tree() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.guard_tree() IS 'Keeps the state of the tree from being changed by anything but sealing. Error 42501.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.leaf_range
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_tile
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.refuse_change();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree_edge
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.tree
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

CREATE TRIGGER sealing_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.open_gap
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.guard_tree();

ALTER TABLE lead_audit.checkpoint ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.leaf_range ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.tree_tile ENABLE ALWAYS TRIGGER append_only;

ALTER TABLE lead_audit.tree_edge ENABLE ALWAYS TRIGGER sealing_only;

ALTER TABLE lead_audit.tree ENABLE ALWAYS TRIGGER sealing_only;

ALTER TABLE lead_audit.open_gap ENABLE ALWAYS TRIGGER sealing_only;

COMMENT ON TRIGGER append_only ON lead_audit.checkpoint IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER append_only ON lead_audit.leaf_range IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER append_only ON lead_audit.tree_tile IS 'Refuses UPDATE, DELETE and TRUNCATE.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree_edge IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.tree IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

COMMENT ON TRIGGER sealing_only ON lead_audit.open_gap IS 'Refuses UPDATE, DELETE and TRUNCATE but for sealing.';

CREATE OR REPLACE VIEW lead_audit.log AS
SELECT e.id, e.occurred_at, e.txid, e.table_schema, e.table_name, e.relation, e.operation, e.outcome,
       e.row_key::jsonb AS row_key,
       CASE WHEN e.operation IN ('UPDATE', 'DELETE') THEN e.row_values::jsonb END AS old_values,
       CASE e.operation
         WHEN 'UPDATE' THEN e.row_values::jsonb || e.changed_values::jsonb
         WHEN 'DELETE' THEN NULL
         ELSE e.row_values::jsonb
       END AS new_values,
       CASE WHEN e.operation = 'UPDATE' AND e.changed_values IS NOT NULL THEN
         (SELECT coalesce(jsonb_object_agg(c.key, jsonb_build_object('old', e.row_values::jsonb -> c.key, 'new', c.value)), '{}')
          FROM jsonb_each(e.changed_values::jsonb) c)
       END AS diff,
       e.soft_delete, e.user_id, e.user_ip, e.user_agent, e.request_id, e.db_session_user, e.db_current_user,
       e.client_addr, e.application_name, e.backend_pid, e.error_code, e.error_message, e.error_detail, e.statement,
       e.checksum, e.details
FROM lead_audit.entry e;

COMMENT ON COLUMN lead_audit.log.diff IS 'UPDATE: {"column": {"old": ..., "new": ...}} for each column that changed.';

CREATE VIEW lead_audit.trigger_kind (name, type, is_row) AS

VALUES ('00_lead_audit_row'::name, 29::smallint, true), ('00_lead_audit_truncate'::name, 34::smallint, false);

REVOKE ALL ON lead_audit.trigger_kind FROM PUBLIC;

COMMENT ON VIEW lead_audit.trigger_kind IS 'Internal: the audit triggers that a watched table has.';

CREATE FUNCTION lead_audit.is_audit_trigger_name(name name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;

REVOKE ALL ON FUNCTION lead_audit.is_audit_trigger_name(name) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.is_audit_trigger_name(name) IS 'Internal: whether audit triggers have this name.';

CREATE OR REPLACE VIEW lead_audit.audit_trigger AS
SELECT k.watch_id, t.tgrelid AS relation, t.tgname AS trigger_name, k.is_row, t.tgparentid = 0 AS is_own,
       
       (t.tgenabled = 'A' OR t.tgenabled = 'O' AND w.replica IS NOT TRUE)
         AND t.tgqual IS NULL AND t.tgattr = ''::pg_catalog.int2vector AND NOT t.tgdeferrable
         AND kind.name IS NOT NULL AS is_on
FROM pg_catalog.pg_trigger t
CROSS JOIN LATERAL (SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)) a(argument)
CROSS JOIN LATERAL (SELECT t.tgfoid = 'lead_audit.capture()'::pg_catalog.regprocedure,
  CASE WHEN a.argument ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN a.argument::pg_catalog.uuid END) k(is_row, watch_id)
LEFT JOIN lead_audit.trigger_kind kind ON (kind.name, kind.type, kind.is_row) = (t.tgname, t.tgtype, k.is_row)
LEFT JOIN lead_audit.watch w ON w.watch_id = k.watch_id
WHERE t.tgfoid IN ('lead_audit.capture()'::pg_catalog.regprocedure, 'lead_audit.capture_truncate()'::pg_catalog.regprocedure);

CREATE OR REPLACE VIEW lead_audit.trigger_state AS
WITH a AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
below AS (
  SELECT DISTINCT c.watch_id, c.relation
  FROM a c JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.relation JOIN a p ON p.relation = i.inhparent AND p.watch_id = c.watch_id
)
SELECT r.watch_id,
       min(r.relation::bigint) FILTER (WHERE r.is_root)::oid AS root,
       bool_and(r.row_on) AS row_on, bool_and(r.truncate_on) AS truncate_on
FROM (SELECT a.watch_id, a.relation, bool_and(b.relation IS NULL) AS is_root,
             coalesce(bool_and(a.is_on) FILTER (WHERE a.is_row), false) AS row_on,
             coalesce(bool_and(a.is_on) FILTER (WHERE NOT a.is_row), bool_and(c.relkind = 'f')) AS truncate_on
      FROM a JOIN pg_catalog.pg_class c ON c.oid = a.relation
      LEFT JOIN below b ON b.watch_id = a.watch_id AND b.relation = a.relation
      GROUP BY a.watch_id, a.relation) r
GROUP BY r.watch_id;

COMMENT ON VIEW lead_audit.trigger_state IS 'Internal: whether the triggers of each watched table, its partitions and child tables included, are all on.';

CREATE FUNCTION lead_audit.is_complete(relation oid, identity uuid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         -- A foreign table has no TRUNCATE triggers.
         AND (coalesce(bool_or(NOT a.is_row AND a.is_on), false) OR EXISTS (SELECT FROM pg_class c WHERE c.oid = $1 AND c.relkind = 'f'))
  FROM lead_audit.audit_trigger a WHERE a.relation = $1 AND a.watch_id = $2
$$;

REVOKE ALL ON FUNCTION lead_audit.is_complete(oid, uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.is_complete(oid, uuid) IS 'Internal: whether the relation has the audit triggers of this identity, and all are on.';

CREATE FUNCTION lead_audit.members_of(root oid) RETURNS SETOF oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE tree(relation) AS (
    SELECT $1 UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relation
  )
  SELECT t.relation FROM tree t JOIN pg_class c ON c.oid = t.relation WHERE c.relkind IN ('r', 'p', 'f')
$$;

CREATE FUNCTION lead_audit.ancestors_of(member oid) RETURNS SETOF oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE tree(relation) AS (
    SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = $1
    UNION SELECT i.inhparent FROM tree t JOIN pg_inherits i ON i.inhrelid = t.relation
  )
  SELECT t.relation FROM tree t
$$;

REVOKE ALL ON FUNCTION lead_audit.members_of(oid), lead_audit.ancestors_of(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.members_of(oid) IS 'Internal: a table, its partitions and its child tables, at any depth.';

COMMENT ON FUNCTION lead_audit.ancestors_of(oid) IS 'Internal: the tables that a table is a partition or a child of, at any depth.';

CREATE FUNCTION lead_audit.shape_of(relation oid) RETURNS bytea LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(convert_to(coalesce(string_agg(format('%s %I %s %s', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum), ''), 'UTF8'))
  FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
$$;

REVOKE ALL ON FUNCTION lead_audit.shape_of(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.shape_of(oid) IS 'Internal: a digest of the table''s columns.';

CREATE FUNCTION lead_audit.primary_key_of(relation oid, OUT attnums smallint[], OUT names text[], OUT types text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(a.attnum ORDER BY a.attnum), '{}'), coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}'),
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}')
  FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1])
  WHERE i.indrelid = $1 AND i.indisprimary
$$;

REVOKE ALL ON FUNCTION lead_audit.primary_key_of(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.primary_key_of(oid) IS 'Internal: the columns of the table''s primary key.';

CREATE OR REPLACE VIEW lead_audit.watched AS
SELECT coalesce(t.root::pg_catalog.regclass::text, pg_catalog.format('%I.%I', w.table_schema, w.table_name)) AS relation,
       coalesce(t.row_on, false) AS row_trigger_on,
       coalesce(t.truncate_on, false) AS truncate_trigger_on,
       coalesce(w.state, 'unregistered') AS state,
       w.soft_delete_column, w.enabled_at, w.baseline_at, coalesce(w.watch_id, t.watch_id) AS watch_id, w.replica
FROM (SELECT * FROM lead_audit.watch WHERE state IN ('on', 'disabled')) w
FULL JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id;

COMMENT ON COLUMN lead_audit.watched.row_trigger_on IS 'Whether every INSERT, UPDATE and DELETE is recorded, in all partitions and child tables.';

COMMENT ON COLUMN lead_audit.watched.replica IS 'Whether rows that logical replication brings are recorded too.';

CREATE OR REPLACE FUNCTION lead_audit.watch_of(relation regclass) RETURNS uuid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = $1::oid ORDER BY a.trigger_name LIMIT 1),
    (SELECT m.watch_id FROM lead_audit.watched_relation m WHERE m.relation = $1::oid),
    (SELECT w.watch_id FROM lead_audit.watch w JOIN pg_class c ON c.relname = w.table_name
       JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = w.table_schema
     WHERE c.oid = $1::oid AND w.state NOT IN ('dropped', 'merged') ORDER BY w.enabled_at DESC LIMIT 1))
$$;

CREATE FUNCTION lead_audit.watched_above(member oid) RETURNS oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.root FROM lead_audit.audit_trigger a JOIN lead_audit.trigger_state t ON t.watch_id = a.watch_id
  WHERE a.relation = $1 AND t.root IN (SELECT lead_audit.ancestors_of($1)) LIMIT 1
$$;

REVOKE ALL ON FUNCTION lead_audit.watched_above(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.watched_above(oid) IS 'Internal: the watched table as a part of which a partition or child table is watched; NULL if it is none.';

CREATE OR REPLACE FUNCTION lead_audit.make_triggers(relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stray record;
BEGIN
  FOR stray IN SELECT a.relation::regclass AS on_relation, a.trigger_name FROM lead_audit.audit_trigger a
               WHERE a.relation = $1::oid AND a.is_own AND NOT lead_audit.is_audit_trigger_name(a.trigger_name)
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', stray.trigger_name, stray.on_relation);
  END LOOP;
  -- What has an identity of its own, as a child table can have, keeps it.
  PERFORM lead_audit.make_member_triggers(m, $2, $3, m = $1::oid)
  FROM (SELECT m FROM lead_audit.members_of($1) m
        WHERE NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = m AND a.is_row AND a.is_own AND a.watch_id <> $2)
        ORDER BY m <> $1::oid) m;
END
$$;

COMMENT ON FUNCTION lead_audit.make_triggers(regclass, uuid, text) IS 'Internal to enable() and the DDL guard: makes the audit triggers of a table, its partitions and child tables, or mends them.';

CREATE FUNCTION lead_audit.make_member_triggers(member oid, watch_id uuid, soft_delete_column text, is_root boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class pg_class := (SELECT c FROM pg_class c WHERE c.oid = member);
BEGIN
  IF is_root OR NOT class.relispartition THEN
    PERFORM lead_audit.make_trigger(member, '00_lead_audit_row', 'AFTER INSERT OR UPDATE OR DELETE', 'ROW', 'capture',
                                    ARRAY[watch_id::text, coalesce(soft_delete_column, '')], watch_id);
  END IF;
  -- A foreign table has no TRUNCATE triggers.
  IF class.relkind <> 'f' THEN
    PERFORM lead_audit.make_truncate_trigger(member, watch_id);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.make_member_triggers(oid, uuid, text, boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.make_member_triggers(oid, uuid, text, boolean) IS 'Internal: makes the audit triggers of one relation of a watched table.';

CREATE FUNCTION lead_audit.make_trigger(relation regclass, name text, events text, level text, function text, arguments text[], identity uuid)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION lead_audit.%I(%s)', name, events, relation, level, function,
                 (SELECT string_agg(quote_literal(a), ', ' ORDER BY n) FROM unnest(arguments) WITH ORDINALITY u(a, n)));
  EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', relation,
                 CASE WHEN (SELECT w.replica FROM lead_audit.watch w WHERE w.watch_id = identity) THEN 'ALWAYS' END, name);
END
$$;

REVOKE ALL ON FUNCTION lead_audit.make_trigger(regclass, text, text, text, text, text[], uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.make_trigger(regclass, text, text, text, text, text[], uuid) IS 'Internal: one audit trigger of a relation.';

CREATE OR REPLACE FUNCTION lead_audit.make_truncate_trigger(relation regclass, watch_id uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.make_trigger($1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate', ARRAY[$2::text], $2)
$$;

CREATE FUNCTION lead_audit.drop_triggers(identity uuid, relations oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  own record;
BEGIN
  FOR own IN SELECT a.relation::regclass AS on_relation, a.trigger_name FROM lead_audit.audit_trigger a
             WHERE a.watch_id = identity AND a.is_own AND (relations IS NULL OR a.relation = ANY (relations)) ORDER BY a.is_row DESC
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', own.trigger_name, own.on_relation);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.drop_triggers(uuid, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.drop_triggers(uuid, oid[]) IS 'Internal: drops the audit triggers of an identity, or those of some relations.';

CREATE OR REPLACE FUNCTION lead_audit.note_relations(identity uuid, touched oid[]) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO lead_audit.watched_relation AS known (relation, watch_id, is_root, table_schema, table_name, soft_delete_attnum, is_complete,
                                                    shape, key_attnums, key_names, key_types)
  SELECT c.oid, s.watch_id, c.oid = s.root, n.nspname, c.relname,
         (SELECT b.attnum FROM pg_attribute b JOIN lead_audit.watch w ON w.watch_id = s.watch_id
          WHERE b.attrelid = c.oid AND b.attname = w.soft_delete_column AND NOT b.attisdropped),
         lead_audit.is_complete(c.oid, s.watch_id), lead_audit.shape_of(c.oid), k.attnums, k.names, k.types
  FROM lead_audit.trigger_state s
  JOIN (SELECT DISTINCT a.watch_id, a.relation FROM lead_audit.audit_trigger a WHERE a.is_row) a ON a.watch_id = s.watch_id
  JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL lead_audit.primary_key_of(c.oid) k
  WHERE s.watch_id = identity AND (touched IS NULL OR c.oid = ANY (touched))
  ON CONFLICT (relation) DO UPDATE
  SET watch_id = excluded.watch_id, is_root = excluded.is_root, table_schema = excluded.table_schema, table_name = excluded.table_name,
      soft_delete_attnum = excluded.soft_delete_attnum, is_complete = excluded.is_complete, shape = excluded.shape,
      key_attnums = excluded.key_attnums, key_names = excluded.key_names, key_types = excluded.key_types;
  -- Triggers that are gone say nothing of their relation, and a restore can bring those of a child table before its parent's.
  UPDATE lead_audit.watched_relation m
  SET is_complete = m.is_complete AND lead_audit.is_complete(m.relation, m.watch_id), is_root = coalesce(m.relation = s.root, m.is_root)
  FROM (SELECT (SELECT t.root FROM lead_audit.trigger_state t WHERE t.watch_id = identity)) s(root)
  WHERE m.watch_id = identity AND (touched IS NULL OR m.relation = ANY (touched) OR m.is_root)
    AND (m.is_complete AND NOT lead_audit.is_complete(m.relation, m.watch_id) OR m.is_root <> coalesce(m.relation = s.root, m.is_root))
$$;

COMMENT ON FUNCTION lead_audit.note_relations(uuid, oid[]) IS 'Internal: takes note of a watched table, its partitions and child tables, or of those of them that are given.';

CREATE FUNCTION lead_audit.last_entry() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s);
EXCEPTION WHEN undefined_table THEN
  -- Somebody has put it away; no entry is written then.
  RETURN 0;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.last_entry() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.last_entry() IS 'Internal: the highest id given out.';

CREATE FUNCTION lead_audit.merge_watch(former uuid, identity uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE lead_audit.watch w SET state = 'changing' WHERE w.watch_id = former;
  PERFORM lead_audit.drop_triggers(former, NULL);
  INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry) VALUES (identity, former, lead_audit.last_entry());
  DELETE FROM lead_audit.watched_relation m WHERE m.watch_id = former;
  UPDATE lead_audit.watch w SET state = 'merged', ended_at = clock_timestamp() WHERE w.watch_id = former;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.merge_watch(uuid, uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.merge_watch(uuid, uuid) IS 'Internal: a table that was watched on its own is from now on watched as a partition of another.';

CREATE FUNCTION lead_audit.watch_table(relation regclass, soft_delete_column name, baseline boolean, replica boolean)
RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
  watching lead_audit.watch;
  wanted lead_audit.watch;
  above regclass;
  part record;
BEGIN
  SELECT c.oid, c.relkind, c.relpersistence, c.relname, n.nspname INTO class
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  IF class IS NULL THEN
    RAISE EXCEPTION 'relation to watch does not exist' USING ERRCODE = 'undefined_table',
      HINT = 'Call it as SELECT lead_audit.enable(''schema.table'');';
  ELSIF class.relkind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% cannot be watched: it is not a table', relation USING ERRCODE = 'wrong_object_type';
  ELSIF class.relpersistence = 't' THEN
    RAISE EXCEPTION '% cannot be watched: it is a temporary table', relation USING ERRCODE = 'wrong_object_type',
      DETAIL = 'A temporary table ends with its session; nobody else can see what is in it.';
  ELSIF class.nspname IN ('pg_catalog', 'information_schema', 'lead_audit') THEN
    RAISE EXCEPTION '% cannot be watched: it belongs to schema %', relation, class.nspname USING ERRCODE = 'wrong_object_type';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);

  above := lead_audit.watched_above(relation);
  IF above IS NOT NULL THEN
    IF soft_delete_column IS NOT NULL OR baseline OR replica IS NOT NULL THEN
      RAISE EXCEPTION '% is watched as a part of %', relation, above USING ERRCODE = 'wrong_object_type',
        DETAIL = 'Partitions and child tables are watched the way the table above them is.',
        HINT = format('Call lead_audit.enable() for %s.', above);
    END IF;
    RAISE NOTICE '% is watched already, as a part of %', relation, above;
    RETURN lead_audit.watch_of(relation);
  END IF;

  wanted.soft_delete_column := lead_audit.soft_delete_column_of(relation, soft_delete_column);
  SELECT * INTO watching FROM lead_audit.watch w WHERE w.watch_id = lead_audit.watch_of(relation);
  IF watching.watch_id IS NULL THEN
    -- Triggers that came with a restored table keep the identity that they carry.
    wanted.watch_id := coalesce(lead_audit.watch_of(relation), gen_random_uuid());
    wanted.replica := coalesce(replica, false);
    INSERT INTO lead_audit.watch (watch_id, table_schema, table_name, soft_delete_column, state, replica)
    VALUES (wanted.watch_id, class.nspname, class.relname, wanted.soft_delete_column, 'changing', wanted.replica);
  ELSE
    wanted.watch_id := watching.watch_id;
    wanted.replica := coalesce(replica, watching.replica);
    IF soft_delete_column IS NULL AND watching.state = 'on' THEN
      wanted.soft_delete_column := watching.soft_delete_column;
    END IF;
    UPDATE lead_audit.watch w
    SET table_schema = class.nspname, table_name = class.relname, soft_delete_column = wanted.soft_delete_column, replica = wanted.replica,
        state = 'changing', ended_at = NULL, enabled_at = CASE watching.state WHEN 'off' THEN clock_timestamp() ELSE w.enabled_at END
    WHERE w.watch_id = watching.watch_id;
    -- That watching begins is no entry. That it goes on after a gap, or otherwise than before, is one.
    IF watching.state <> 'on' OR (wanted.soft_delete_column, wanted.replica) IS DISTINCT FROM (watching.soft_delete_column, watching.replica) THEN
      PERFORM lead_audit.write_ddl(watching.watch_id, relation, class.nspname, class.relname, current_query());
    END IF;
  END IF;

  FOR part IN
    SELECT DISTINCT a.watch_id, c.oid AS relation, n.nspname, c.relname
    FROM lead_audit.members_of(class.oid) m JOIN lead_audit.audit_trigger a ON a.relation = m AND a.is_row AND a.is_own AND a.watch_id <> wanted.watch_id
    JOIN pg_class c ON c.oid = m AND c.relispartition AND m <> class.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY n.nspname, c.relname
  LOOP
    PERFORM lead_audit.write_ddl(part.watch_id, part.relation, part.nspname, part.relname, current_query());
    PERFORM lead_audit.merge_watch(part.watch_id, wanted.watch_id);
  END LOOP;

  IF (wanted.soft_delete_column, wanted.replica) IS DISTINCT FROM (watching.soft_delete_column, watching.replica)
     OR EXISTS (SELECT FROM lead_audit.members_of(class.oid) m WHERE NOT lead_audit.is_complete(m, wanted.watch_id))
     OR EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = class.oid AND NOT a.is_on) THEN
    PERFORM lead_audit.make_triggers(relation, wanted.watch_id, wanted.soft_delete_column);
  END IF;
  PERFORM lead_audit.note_relations(wanted.watch_id, NULL);
  PERFORM lead_audit.warn_of_earlier_triggers(relation);

  IF baseline AND watching.baseline_at IS NOT NULL THEN
    RAISE NOTICE '% already has a baseline, written at %', relation, watching.baseline_at;
  ELSIF baseline THEN
    PERFORM lead_audit.write_baseline(m.oid, wanted.watch_id, coalesce(wanted.soft_delete_column, ''))
    FROM (SELECT c.oid FROM lead_audit.members_of(class.oid) m JOIN pg_class c ON c.oid = m AND c.relkind = 'r'
          WHERE lead_audit.is_complete(m, wanted.watch_id) ORDER BY c.oid) m;
    UPDATE lead_audit.watch w SET baseline_at = clock_timestamp() WHERE w.watch_id = wanted.watch_id;
  END IF;
  UPDATE lead_audit.watch w SET state = 'on' WHERE w.watch_id = wanted.watch_id;
  RETURN wanted.watch_id;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.watch_table(regclass, name, boolean, boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.watch_table(regclass, name, boolean, boolean) IS 'Internal to enable().';

CREATE OR REPLACE FUNCTION lead_audit.enable(relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.watch_table($1, $2, $3, NULL)
$$;

CREATE OR REPLACE FUNCTION lead_audit.enable(relation regclass, replica boolean, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.watch_table($1, $3, $4, $2)
$$;

REVOKE ALL ON FUNCTION lead_audit.enable(regclass, name, boolean), lead_audit.enable(regclass, boolean, name, boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.enable(regclass, name, boolean) IS 'Watches a table from now on, with its partitions and child tables; returns its identity. A second call changes nothing but what it is given. soft_delete_column: by default is_deleted, if there is such a boolean column. baseline: first write one SNAPSHOT entry for each row already there. Errors: 42P01 no such relation, 42809 not a permanent table, or one that is watched as a part of another, 42703 or 42804 no such boolean column.';

COMMENT ON FUNCTION lead_audit.enable(regclass, boolean, name, boolean) IS 'The same. replica: whether rows are recorded, too, that logical replication or session_replication_role = replica brings; false until it is said.';

CREATE OR REPLACE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := lead_audit.watch_of(relation);
  above regclass;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation) THEN
    RAISE EXCEPTION 'relation to stop watching does not exist' USING ERRCODE = 'undefined_table';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  above := lead_audit.watched_above(relation);
  IF above IS NOT NULL THEN
    RAISE EXCEPTION '% is watched as a part of %', relation, above USING ERRCODE = 'wrong_object_type',
      DETAIL = 'Partitions and child tables are watched as long as the table above them is.',
      HINT = format('Call lead_audit.disable() for %s, or take the table out of it first.', above);
  END IF;
  IF NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.watch_id = identity)
     AND NOT EXISTS (SELECT FROM lead_audit.watch w WHERE w.watch_id = identity AND w.state <> 'off') THEN
    RETURN false;
  END IF;
  UPDATE lead_audit.watch w SET state = 'changing' WHERE w.watch_id = identity;
  PERFORM lead_audit.write_ddl(identity, c.oid, n.nspname, c.relname, current_query())
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  PERFORM lead_audit.drop_triggers(identity, NULL);
  -- The table itself stays known, so that its history is found if it is renamed.
  DELETE FROM lead_audit.watched_relation m WHERE m.watch_id = identity AND NOT m.is_root;
  UPDATE lead_audit.watch w SET state = 'off', ended_at = clock_timestamp(), baseline_at = NULL WHERE w.watch_id = identity;
  RETURN true;
END
$$;

COMMENT ON FUNCTION lead_audit.disable(regclass) IS 'Stops watching a table; the trail so far stays, and the end of watching is an entry (DDL). True if it was watched. Who may execute this may also switch the triggers off by ALTER TABLE. Errors: 42P01 no such relation, 42809 one that is watched as a part of another.';

CREATE FUNCTION lead_audit.relations_of_command(is_drop boolean) RETURNS TABLE (relation oid, trigger_id oid, command text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF is_drop THEN
    RETURN QUERY
      SELECT r.oid, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      -- A column belongs to its relation; triggers and constraints say by name whose they were.
      JOIN pg_class r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
        OR d.object_type IN ('trigger', 'table constraint')
           AND r.relname = d.address_names[2] AND r.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = d.address_names[1])
      WHERE NOT d.is_temporary;
  ELSE
    RETURN QUERY
      SELECT CASE c.classid WHEN 'pg_trigger'::regclass THEN t.tgrelid ELSE c.objid END, t.oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      LEFT JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
      WHERE c.classid IN ('pg_class'::regclass, 'pg_trigger'::regclass)
      UNION ALL
      -- A type's attributes are the columns of the tables that are made of it.
      SELECT r.oid, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c JOIN pg_class r ON r.reloftype <> 0 AND c.command_tag = 'ALTER TYPE';
  END IF;
END
$$;

CREATE FUNCTION lead_audit.affected_relations(is_drop boolean) RETURNS SETOF oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM (SELECT DISTINCT c.relation FROM lead_audit.relations_of_command($1) c) c CROSS JOIN LATERAL lead_audit.members_of(c.relation) m
$$;

REVOKE ALL ON FUNCTION lead_audit.relations_of_command(boolean), lead_audit.affected_relations(boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.relations_of_command(boolean) IS 'Internal to the DDL guard: the relations that the command names.';

COMMENT ON FUNCTION lead_audit.affected_relations(boolean) IS 'Internal to the DDL guard: those relations, their partitions and child tables.';

CREATE OR REPLACE FUNCTION lead_audit.refuse_ddl(invoker oid, is_drop boolean) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused text;
BEGIN
  IF lead_audit.may_disable(invoker) THEN
    RETURN;
  END IF;
  SELECT f.relation::regclass::text INTO refused
  FROM lead_audit.affected_relations(is_drop) f(relation)
  WHERE EXISTS (SELECT FROM lead_audit.audit_trigger a JOIN lead_audit.watch w ON w.watch_id = a.watch_id AND w.state = 'on'
                WHERE a.relation = f.relation AND NOT a.is_on)
     -- What leaves the table above it is looked after by follow_ddl().
     OR EXISTS (SELECT FROM lead_audit.watched_relation m JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
                WHERE m.relation = f.relation AND m.is_complete AND NOT lead_audit.is_complete(m.relation, m.watch_id)
                  AND (m.is_root OR EXISTS (SELECT FROM lead_audit.ancestors_of(m.relation) p JOIN lead_audit.watched_relation k
                                            ON k.relation = p AND k.watch_id = m.watch_id)))
  LIMIT 1;
  IF refused IS NULL AND NOT is_drop THEN
    SELECT t.tgrelid::regclass::text INTO refused
    FROM lead_audit.relations_of_command(false) c JOIN pg_trigger t ON t.oid = c.trigger_id
    WHERE t.tgparentid = 0
      AND (t.tgfoid IN ('lead_audit.capture()'::regprocedure, 'lead_audit.capture_truncate()'::regprocedure)
           -- Its name would be in the way of the trigger that a watched table needs.
           OR lead_audit.is_audit_trigger_name(t.tgname))
    LIMIT 1;
  END IF;
  IF refused IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied to disable the audit triggers of table %', refused
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'The table is watched by lead_audit. Being its owner does not include the right to end that.',
            HINT = 'Name the triggers that you mean instead of ALL or USER, or ask a superuser to run lead_audit.disable().';
  END IF;
END
$$;

CREATE FUNCTION lead_audit.refuse_id_order() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Asked first: what follows needs tables that a repair may be about to bring back.
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
                 WHERE c.classid = 'pg_class'::regclass AND c.objid = to_regclass('lead_audit.entry_id_seq')) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = to_regclass('lead_audit.entry_id_seq')
             AND ((s.seqcache, s.seqincrement) <> (1, 1) OR s.seqcycle))
     OR lead_audit.last_entry() < (SELECT max(e.id) FROM lead_audit.entry e)
  THEN
    RAISE EXCEPTION 'sequence lead_audit.entry_id_seq cannot be altered like this'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Ids of entries are the order of the events: they are given out one by one, each higher than all before it.',
            HINT = 'Leave it at INCREMENT 1 CACHE 1 NO CYCLE, and its value above the highest id in lead_audit.entry.';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.refuse_id_order() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.refuse_id_order() IS 'Internal to the DDL guard: refuses to everybody what would put ids of entries out of order. Error 55000.';

CREATE FUNCTION lead_audit.follow_parting(watching lead_audit.watch, root oid) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone oid[] := array(SELECT m.relation FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation
                      WHERE m.watch_id = watching.watch_id AND NOT m.is_root AND m.relation NOT IN (SELECT lead_audit.members_of(root)));
  top record;
  identity uuid;
BEGIN
  FOR top IN
    SELECT m.* FROM lead_audit.watched_relation m
    WHERE m.relation = ANY (gone) AND NOT EXISTS (SELECT FROM lead_audit.ancestors_of(m.relation) p WHERE p = ANY (gone))
  LOOP
    PERFORM lead_audit.write_ddl(watching.watch_id, top.relation, top.table_schema, top.table_name, current_query());
    PERFORM lead_audit.drop_triggers(watching.watch_id, array(SELECT lead_audit.members_of(top.relation)));
    DELETE FROM lead_audit.watched_relation m WHERE m.relation IN (SELECT lead_audit.members_of(top.relation)) AND m.watch_id = watching.watch_id;
    IF watching.state = 'on' THEN
      INSERT INTO lead_audit.watch (table_schema, table_name, soft_delete_column, state, baseline_at, replica)
      VALUES (top.table_schema, top.table_name, watching.soft_delete_column, 'changing', watching.baseline_at, watching.replica)
      RETURNING watch_id INTO identity;
      INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry) VALUES (identity, watching.watch_id, lead_audit.last_entry());
      PERFORM lead_audit.make_triggers(top.relation, identity, watching.soft_delete_column);
      PERFORM lead_audit.note_relations(identity, NULL);
      UPDATE lead_audit.watch w SET state = 'on' WHERE w.watch_id = identity;
    END IF;
    RETURN NEXT top.relation;
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit.follow_joining(watching lead_audit.watch, root oid, came_with_rows boolean) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh oid[] := array(SELECT m FROM lead_audit.members_of(root) m
                       WHERE NOT EXISTS (SELECT FROM lead_audit.watched_relation k WHERE k.relation = m)
                         AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = m AND a.is_row AND a.watch_id <> watching.watch_id));
  top record;
BEGIN
  PERFORM lead_audit.make_member_triggers(f, watching.watch_id, watching.soft_delete_column, false) FROM unnest(fresh) f;
  IF came_with_rows THEN
    FOR top IN
      SELECT c.oid AS relation, n.nspname, c.relname FROM unnest(fresh) f JOIN pg_class c ON c.oid = f JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT EXISTS (SELECT FROM lead_audit.ancestors_of(f) p WHERE p = ANY (fresh))
    LOOP
      PERFORM lead_audit.write_ddl(watching.watch_id, top.relation, top.nspname, top.relname, current_query());
      IF watching.baseline_at IS NOT NULL THEN
        PERFORM lead_audit.write_baseline(m, watching.watch_id, coalesce(watching.soft_delete_column, ''))
        FROM lead_audit.members_of(top.relation) m JOIN pg_class c ON c.oid = m AND c.relkind = 'r';
      END IF;
      RETURN NEXT top.relation;
    END LOOP;
  END IF;
  IF fresh <> '{}' THEN
    PERFORM lead_audit.note_relations(watching.watch_id, fresh);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.follow_parting(lead_audit.watch, oid), lead_audit.follow_joining(lead_audit.watch, oid, boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.follow_parting(lead_audit.watch, oid) IS 'Internal to the DDL guard: partitions and child tables that left a watched table. Returns those that have an entry now.';

COMMENT ON FUNCTION lead_audit.follow_joining(lead_audit.watch, oid, boolean) IS 'Internal to the DDL guard: partitions and child tables that came to a watched table. Returns those that have an entry now.';

CREATE FUNCTION lead_audit.follow_reshaping(watching lead_audit.watch, affected oid[], recorded oid[], rewritten boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed oid[] := array(
    SELECT m.relation FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE m.watch_id = watching.watch_id
      AND ((m.table_schema, m.table_name) <> (n.nspname::text, c.relname::text)
           OR m.relation = ANY (affected) AND m.shape IS NOT NULL
              AND (rewritten OR m.shape <> lead_audit.shape_of(m.relation)
                   -- A restore with several jobs can bring the key after the triggers.
                   OR m.key_attnums <> (lead_audit.primary_key_of(m.relation)).attnums AND NOT (m.is_restored AND m.key_attnums = '{}'))));
  top record;
BEGIN
  UPDATE lead_audit.watched_relation m SET is_restored = false WHERE m.relation = ANY (changed) AND m.is_restored;
  FOR top IN
    SELECT m.*, k.attnums, k.names, k.types FROM lead_audit.watched_relation m CROSS JOIN LATERAL lead_audit.primary_key_of(m.relation) k
    WHERE m.relation = ANY (changed) AND NOT EXISTS (SELECT FROM lead_audit.ancestors_of(m.relation) p WHERE p = ANY (changed))
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    IF NOT top.relation = ANY (recorded) THEN
      PERFORM lead_audit.write_ddl(top.watch_id, top.relation, top.table_schema, top.table_name, current_query());
    END IF;
    IF top.is_root AND top.key_attnums IS NOT NULL AND (top.attnums, top.names, top.types) IS DISTINCT FROM (top.key_attnums, top.key_names, top.key_types) THEN
      INSERT INTO lead_audit.former_key (watch_id, until_entry, column_names, column_types, same_columns)
      VALUES (top.watch_id, lead_audit.last_entry(), top.key_names, top.key_types, top.attnums = top.key_attnums)
      ON CONFLICT DO NOTHING;
    END IF;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.follow_reshaping(lead_audit.watch, oid[], oid[], boolean) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.follow_reshaping(lead_audit.watch, oid[], oid[], boolean) IS 'Internal to the DDL guard: one entry for each watched table whose columns, key or name changed, unless it has one of this command.';

CREATE FUNCTION lead_audit.follow_ddl(is_drop boolean, effects text[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit.affected_relations(is_drop));
  mended boolean := NOT is_drop AND EXISTS (SELECT FROM lead_audit.relations_of_command(is_drop) c WHERE c.command <> 'CREATE TRIGGER');
  watching lead_audit.watch;
  root oid;
  recorded oid[];
  known oid[];
BEGIN
  FOR watching IN
    SELECT w.* FROM lead_audit.watch w
    WHERE w.state <> 'changing' AND w.watch_id IN (
      SELECT m.watch_id FROM lead_audit.watched_relation m WHERE m.relation = ANY (affected)
      UNION SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = ANY (affected)
      UNION SELECT m.watch_id FROM unnest(affected) r CROSS JOIN LATERAL lead_audit.ancestors_of(r) p JOIN lead_audit.watched_relation m ON m.relation = p
      UNION SELECT m.watch_id FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE (m.table_schema, m.table_name) <> (n.nspname::text, c.relname::text))
    ORDER BY w.enabled_at
  LOOP
    recorded := '{}';
    root := (SELECT m.relation FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation WHERE m.watch_id = watching.watch_id AND m.is_root);
    IF watching.state IN ('on', 'disabled') AND root IS NOT NULL THEN
      recorded := recorded || array(SELECT lead_audit.follow_parting(watching, root));
      IF effects && '{made,joined}' THEN
        recorded := recorded || array(SELECT lead_audit.follow_joining(watching, root, 'joined' = ANY (effects)));
      END IF;
      -- A relation that a restore brought is taken note of when a command first touches it; what that command did to its
      -- triggers (pg_dump --disable-triggers switches them off while it loads the data) is the restore's doing.
      IF watching.state = 'on' AND EXISTS (SELECT FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation
                                           WHERE m.watch_id = watching.watch_id AND m.relation = ANY (affected) AND m.is_complete
                                             AND NOT lead_audit.is_complete(m.relation, m.watch_id)) THEN
        PERFORM lead_audit.note_state(watching, 'disabled', root);
        recorded := recorded || affected;
      ELSIF watching.state = 'disabled' AND mended
            AND EXISTS (SELECT FROM lead_audit.trigger_state t WHERE t.watch_id = watching.watch_id AND t.root IS NOT NULL AND t.row_on AND t.truncate_on) THEN
        PERFORM lead_audit.note_state(watching, 'on', root);
        recorded := recorded || affected;
      END IF;
      PERFORM lead_audit.follow_reshaping(watching, affected, recorded, 'rewritten' = ANY (effects));
      PERFORM lead_audit.follow_soft_delete_column(watching.watch_id);
    END IF;
    known := array(SELECT m.relation FROM lead_audit.watched_relation m WHERE m.watch_id = watching.watch_id);
    PERFORM lead_audit.note_relations(watching.watch_id, affected);
    UPDATE lead_audit.watched_relation m SET is_restored = true
    WHERE m.watch_id = watching.watch_id AND m.relation = ANY (affected) AND NOT m.relation = ANY (known);
  END LOOP;

  UPDATE lead_audit.watched_relation m SET table_schema = n.nspname, table_name = c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = m.relation AND (m.table_schema, m.table_name) <> (n.nspname::text, c.relname::text);
  UPDATE lead_audit.watch w SET table_schema = m.table_schema, table_name = m.table_name
  FROM lead_audit.watched_relation m
  WHERE m.watch_id = w.watch_id AND m.is_root AND w.state <> 'changing' AND (w.table_schema, w.table_name) <> (m.table_schema, m.table_name);
END
$$;

REVOKE ALL ON FUNCTION lead_audit.follow_ddl(boolean, text[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.follow_ddl(boolean, text[]) IS 'Internal to the DDL guard: compares the watched tables that a command touched with what is known of them, records the difference and takes note of it.';

CREATE FUNCTION lead_audit.command_effects() RETURNS text[] LANGUAGE c AS 'MODULE_PATHNAME', 'command_effects_wrapper';

REVOKE ALL ON FUNCTION lead_audit.command_effects() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.command_effects() IS 'Internal to the DDL guard: what the command does besides that only its text tells. made: a partition or child table was created; joined: a table became one; rewritten: a column was given a type.';

CREATE OR REPLACE FUNCTION lead_audit.after_ddl(made_partition boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
BEGIN
  PERFORM lead_audit.refuse_id_order();
  FOR seen IN
    SELECT DISTINCT m.relation FROM lead_audit.relations_of_command(false) c JOIN lead_audit.watched_relation m ON m.relation = c.relation
    JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on' WHERE c.trigger_id IS NOT NULL
  LOOP
    PERFORM lead_audit.warn_of_earlier_triggers(seen.relation);
  END LOOP;
  PERFORM lead_audit.follow_ddl(false, lead_audit.command_effects());
END
$$;

COMMENT ON FUNCTION lead_audit.after_ddl(boolean) IS 'Internal to the DDL guard: called at the end of a DDL command. Its argument is that of version 0.1, and not used any more.';

CREATE OR REPLACE FUNCTION lead_audit.after_drop() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    RETURN;
  END IF;
  FOR gone IN
    SELECT w, m.relation, m.is_root, m.table_schema, m.table_name
    FROM pg_event_trigger_dropped_objects() d
    JOIN lead_audit.watched_relation m ON d.classid = 'pg_class'::regclass AND d.objid = m.relation AND d.objsubid = 0
    JOIN lead_audit.watch w ON w.watch_id = m.watch_id
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    IF gone.is_root AND (gone.w).state IN ('on', 'disabled') THEN
      PERFORM lead_audit.note_state(gone.w, 'dropped', gone.relation);
    ELSIF gone.is_root THEN
      UPDATE lead_audit.watch w SET state = 'dropped' WHERE w.watch_id = (gone.w).watch_id;
    ELSIF EXISTS (SELECT FROM lead_audit.watch w WHERE w.watch_id = (gone.w).watch_id AND w.state IN ('on', 'disabled')) THEN
      -- A partition of a table that stays.
      PERFORM lead_audit.write_ddl((gone.w).watch_id, gone.relation, gone.table_schema, gone.table_name, current_query());
    END IF;
    DELETE FROM lead_audit.watched_relation m WHERE m.relation = gone.relation;
  END LOOP;
  PERFORM lead_audit.follow_ddl(true, '{}');
END
$$;

COMMENT ON FUNCTION lead_audit.after_drop() IS 'Internal to the DDL guard: takes note of dropped audit triggers, watched tables, partitions, columns and keys.';

CREATE FUNCTION lead_audit.before_attach(above oid, partition oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := (SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = above AND a.is_row LIMIT 1);
  former uuid;
BEGIN
  FOR former IN
    SELECT DISTINCT a.watch_id FROM lead_audit.members_of(partition) m JOIN lead_audit.audit_trigger a ON a.relation = m
    WHERE identity IS NOT NULL AND a.is_own AND a.watch_id <> identity
  LOOP
    PERFORM lead_audit.merge_watch(former, identity);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.before_attach(oid, oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.before_attach(oid, oid) IS 'Internal to the DDL guard: a watched table is about to become a partition of another watched table.';

DROP EVENT TRIGGER lead_audit_ddl;

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER SEQUENCE')
  EXECUTE FUNCTION lead_audit.guard_ddl();

ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_ddl IS 'Notices audit triggers that are switched off or replaced, watched tables that are renamed or reshaped, and partitions that come and go.';

CREATE EVENT TRIGGER lead_audit_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION lead_audit.guard_ddl();

ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_start IS 'Makes way where a watched table becomes a partition of another.';

CREATE FUNCTION lead_audit.seal() RETURNS bigint
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'seal_wrapper';

REVOKE ALL ON FUNCTION lead_audit.seal() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.seal() IS 'Takes the entries of finished transactions (and those that the calling one has written so far) into the tree, writes a checkpoint, or several of many entries, and publishes it when the transaction is committed. Returns the number of leaves in the tree. The background worker does the same every lead_audit.seal_interval. Other sealing waits until the calling transaction ends; writers never do.';

CREATE FUNCTION lead_audit.inclusion_proof(id bigint, tree_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'inclusion_proof_wrapper';

REVOKE ALL ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) IS 'Proof that an entry is in the tree, as a C2SP tlog-proof with the newest checkpoint, or that of tree_size. Errors: P0002 for an entry or checkpoint that there is not, 55000 for an entry that is not sealed yet, 22023 for a tree that the entry is not in.';

CREATE FUNCTION lead_audit.consistency_proof(from_size bigint, to_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'consistency_proof_wrapper';

REVOKE ALL ON FUNCTION lead_audit.consistency_proof(bigint, bigint) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.consistency_proof(bigint, bigint) IS 'Proof that the tree of from_size leaves has only grown into that of to_size (by default the whole tree): the hashes of RFC 6962, section 2.1.2, in base64, each on a line. Empty for equal sizes and for 0. Error 22023 for sizes that the tree has not had.';

CREATE FUNCTION lead_audit.latest_checkpoint() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'latest_checkpoint_wrapper';

REVOKE ALL ON FUNCTION lead_audit.latest_checkpoint() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.latest_checkpoint() IS 'The newest checkpoint as it left the database: a C2SP signed note, or the unsigned text. NULL before the first.';

CREATE FUNCTION lead_audit.origin() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'origin_wrapper';

REVOKE ALL ON FUNCTION lead_audit.origin() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.origin() IS 'The name of this log in its next checkpoint: that of the signing key, or lead_audit.origin, or lead_audit/ and the log''s id.';

CREATE FUNCTION lead_audit.verifier_key() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'verifier_key_text_wrapper';

REVOKE ALL ON FUNCTION lead_audit.verifier_key() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.verifier_key() IS 'The public key that belongs to lead_audit.signing_key_file, as the text that verifiers take. NULL if checkpoints are not signed. Who audits gets it from elsewhere: the database is not to be trusted with it.';

COMMENT ON FUNCTION lead_audit.verify(bigint, bigint, timestamptz, timestamptz) IS 'Checks every entry and the whole tree or, with arguments, the entries with ids or times from ... to ... inclusive. One row for each fault: the entry''s id (NULL for what is not of one entry), the kind of fault, and what is wrong. No row: nothing was touched that can be seen from within the database. Entries that are not sealed yet are no fault. Can be cancelled; a NOTICE every few seconds says how far it is.';

COMMENT ON FUNCTION lead_audit.verify_entry(bigint) IS 'Whether the entry is as it was written and, once it is sealed, as it was sealed. False, too, for an id that does not exist.';

CREATE TABLE lead_audit.queue_position (
  queue bigint PRIMARY KEY,
  position bigint NOT NULL
);

REVOKE ALL ON lead_audit.queue_position FROM PUBLIC;

COMMENT ON TABLE lead_audit.queue_position IS 'Internal: the last record of the queue of failed operations that was written here, so that none is written twice.';

COMMENT ON COLUMN lead_audit.queue_position.queue IS 'Which life of the queue: it ends with the server.';

COMMENT ON COLUMN lead_audit.queue_position.position IS 'Number of the record.';

CREATE FUNCTION lead_audit.queue(OUT database oid, OUT database_name text, OUT queued bigint, OUT written bigint, OUT dropped bigint,
  OUT waiting bigint, OUT worker_pid integer) RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'queue_wrapper';

REVOKE ALL ON FUNCTION lead_audit.queue() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.queue() IS 'What became of failed operations since the server was started, for each database with the extension: taken into the queue, written as entries, only in the server''s log (dropped), and bytes that wait; and the process that writes them. No row where the library is not preloaded.';

CREATE FUNCTION lead_audit.own_queue(OUT queued bigint, OUT written bigint, OUT dropped bigint) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'own_queue_wrapper';

COMMENT ON FUNCTION lead_audit.own_queue() IS 'Internal to lead_audit.stats: the counts of lead_audit.queue() for this database.';

CREATE FUNCTION lead_audit.status(OUT part text, OUT state text, OUT reason text, OUT remedy text) RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'status_wrapper';

REVOKE ALL ON FUNCTION lead_audit.status() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.status() IS 'Which parts of lead_audit are on in this database, why others are not, and what to do about it: a line for postgresql.conf, or a command.';

CREATE FUNCTION lead_audit.key_columns(relation regclass) RETURNS smallint[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN p.attnums <> '{}' THEN p.attnums ELSE coalesce(
    (SELECT CASE WHEN count(*) = max(cardinality(f.column_names)) THEN array_agg(a.attnum ORDER BY a.attnum) END
     FROM (SELECT k.column_names FROM lead_audit.former_key k
           WHERE k.watch_id = lead_audit.watch_of($1) AND k.column_names <> '{}' ORDER BY k.until_entry DESC LIMIT 1) f
     JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum > 0 AND a.attname = ANY (f.column_names)), '{}') END
  FROM lead_audit.primary_key_of($1) p
$$;

REVOKE ALL ON FUNCTION lead_audit.key_columns(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.key_columns(regclass) IS 'Internal: numbers of the columns of the primary key, or of the last one that there was while the table was watched.';

CREATE OR REPLACE FUNCTION lead_audit.key_of(relation regclass, key_columns smallint[], column_names text[], column_values text[]) RETURNS text
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'key_of_columns_wrapper';

REVOKE ALL ON FUNCTION lead_audit.key_of(regclass, smallint[], text[], text[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.key_of(regclass, smallint[], text[], text[]) IS 'Internal: the row_key text of the row with these values in the key columns. NULL if column_names are others than those of key_columns.';

CREATE OR REPLACE FUNCTION lead_audit.key_of(relation regclass, key text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.key_of($1, lead_audit.key_columns($1), NULL, ARRAY[$2])
$$;

CREATE OR REPLACE FUNCTION lead_audit.key_of(relation regclass, key jsonb) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT lead_audit.key_of($1, lead_audit.key_columns($1), array_agg(k.key), array_agg(k.value)) FROM jsonb_each_text($2) k),
                  lead_audit.canonical_json($2))
$$;

REVOKE ALL ON FUNCTION lead_audit.key_of(regclass, text), lead_audit.key_of(regclass, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.key_of(regclass, text) IS 'Internal: the row_key text of the row whose one primary key column has this value. Errors: 42P10 if there is no or more than one such column, and those of the column''s type for a value that is none.';

COMMENT ON FUNCTION lead_audit.key_of(regclass, jsonb) IS 'Internal: the same with the columns by name. Other columns than those of the primary key are taken as those of an earlier one.';

CREATE FUNCTION lead_audit.value_as(relation regclass, type_name text, value text) RETURNS text
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'value_as_wrapper';

REVOKE ALL ON FUNCTION lead_audit.value_as(regclass, text, text) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.value_as(regclass, text, text) IS 'Internal: how entries of the relation show a value that was of this type. NULL if it is none of that type.';

CREATE FUNCTION lead_audit.identities_of(relation regclass) RETURNS TABLE (watch_id uuid, until_entry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE known(watch_id, until_entry) AS (
    SELECT w, 9223372036854775807 FROM lead_audit.watch_of($1) w WHERE w IS NOT NULL
    UNION
    SELECT e.earlier_id, e.until_entry FROM known k JOIN lead_audit.earlier_identity e ON e.watch_id = k.watch_id AND e.until_entry <= k.until_entry
  )
  SELECT k.watch_id, max(k.until_entry) FROM known k GROUP BY k.watch_id
$$;

REVOKE ALL ON FUNCTION lead_audit.identities_of(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.identities_of(regclass) IS 'Internal: the identities under which entries of the table''s rows are, and until which entry.';

CREATE FUNCTION lead_audit.former_spellings(relation regclass, row_key text, identity uuid, until bigint)
RETURNS TABLE (spelling jsonb, is_key boolean, after_entry bigint, until_entry bigint) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := row_key::jsonb;
  present record;
  later_names text[];
  former record;
BEGIN
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types INTO present
  FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = ANY (lead_audit.key_columns(relation));
  IF NOT (key ?& present.names AND present.names @> array(SELECT jsonb_object_keys(key))) THEN
    RETURN; -- a key of other columns than the present one's: only itself
  END IF;
  IF (SELECT p.attnums = '{}' FROM lead_audit.primary_key_of(relation) p) THEN
    RETURN QUERY SELECT key, false, coalesce(max(f.until_entry), 0), until
                 FROM lead_audit.former_key f WHERE f.watch_id = identity AND f.until_entry <= until;
  END IF;
  spelling := key;
  is_key := true;
  later_names := present.names;
  FOR former IN
    SELECT f.*, lag(f.until_entry, 1, 0::bigint) OVER (ORDER BY f.until_entry) AS after
    FROM lead_audit.former_key f WHERE f.watch_id = identity AND f.until_entry <= until ORDER BY f.until_entry DESC
  LOOP
    is_key := is_key AND former.same_columns OR former.column_names = later_names;
    IF is_key THEN
      later_names := former.column_names;
      SELECT jsonb_object_agg(c.former_name, c.value) INTO spelling
      FROM (SELECT u.former_name, CASE WHEN u.former_type = u.type OR jsonb_typeof(key -> u.name) = 'null' THEN key -> u.name
                                  ELSE lead_audit.value_as(relation, u.former_type, key ->> u.name)::jsonb END AS value
            FROM unnest(former.column_names, former.column_types, present.names, present.types) u(former_name, former_type, name, type)) c
      HAVING count(c.value) = count(*);
      EXIT WHEN spelling IS NULL; -- no value of that time can have become this one
    END IF;
    after_entry := former.after;
    until_entry := former.until_entry;
    RETURN NEXT;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit.former_spellings(regclass, text, uuid, bigint) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.former_spellings(regclass, text, uuid, bigint) IS 'Internal: how row_key was spelt while the key''s columns had other names or types, by ranges of entries; and whether these columns were the key.';

CREATE OR REPLACE FUNCTION lead_audit.entries_of(relation regclass, row_key text) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    SELECT i.watch_id, row_key AS spelling, true AS is_key, 0::bigint AS after_entry, i.until_entry FROM lead_audit.identities_of(relation) i
    UNION ALL
    SELECT i.watch_id, lead_audit.canonical_json(f.spelling), f.is_key, f.after_entry, f.until_entry FROM lead_audit.identities_of(relation) i
    CROSS JOIN LATERAL lead_audit.former_spellings(relation, row_key, i.watch_id, i.until_entry) f
  LOOP
    IF wanted.is_key THEN
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling) AND e.watch_id = wanted.watch_id
          AND e.row_key::text = wanted.spelling AND e.id <= wanted.until_entry
        UNION ALL
        SELECT e.id FROM lead_audit.entry e
        WHERE e.previous_key_hash = lead_audit.key_hash(wanted.watch_id, wanted.spelling) AND e.watch_id = wanted.watch_id
          AND e.id <= wanted.until_entry;
    ELSE
      RETURN QUERY
        SELECT e.id FROM lead_audit.entry e
        WHERE e.id > wanted.after_entry AND e.id <= wanted.until_entry AND e.watch_id = wanted.watch_id AND e.row_values IS NOT NULL
          AND (lead_audit.has_values(e.row_values::jsonb, wanted.spelling::jsonb)
               OR lead_audit.has_values(e.row_values::jsonb || e.changed_values::jsonb, wanted.spelling::jsonb));
    END IF;
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit.has_values(row_values jsonb, wanted jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and($1 -> k.key = k.value) FROM jsonb_each($2) k
$$;

REVOKE ALL ON FUNCTION lead_audit.entries_of(regclass, text), lead_audit.has_values(jsonb, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.entries_of(regclass, text) IS 'Internal: ids of the entries of one row, those in which it got or lost this key included. An id can come twice.';

COMMENT ON FUNCTION lead_audit.has_values(jsonb, jsonb) IS 'Internal: whether a row has all of these values.';

COMMENT ON FUNCTION lead_audit.history(regclass, text) IS 'The entries of one row in order, by its primary key, whatever the table and the key''s columns were called at the time.';

COMMENT ON FUNCTION lead_audit.history(regclass, jsonb) IS 'The entries of one row in order, by its primary key as {"column": value, ...}.';

COMMENT ON FUNCTION lead_audit.summary(regclass, jsonb) IS 'The same, for a key given as {"column": value, ...}.';

CREATE OR REPLACE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s) AS entries_not_written,
       (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s) AS last_id,
       (SELECT count(*) FROM lead_audit.watched w WHERE w.row_trigger_on) AS tables_watched,
       pg_catalog.pg_total_relation_size('lead_audit.entry') AS bytes,
       q.queued, q.written, q.dropped,
       
       
       CASE WHEN n.new <= 100000 THEN n.new + l.late
            ELSE (SELECT s.last_value FROM lead_audit.entry_id_seq s) - t.looked_to END AS unsealed_entries,
       least(n.oldest, l.oldest) AS oldest_unsealed,
       pg_catalog.clock_timestamp() - least(n.oldest, l.oldest) AS seal_lag,
       (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM lead_audit.open_gap g, unnest(g.ids) r) AS open_ids,
       (SELECT min(g.seen_at) FROM lead_audit.open_gap g) AS open_since,
       t.tree_size,
       c.sealed_at AS last_checkpoint_at,
       c.note LIKE E'%\n\n%' AS last_checkpoint_signed,
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error
FROM lead_audit.own_queue() q
LEFT JOIN (SELECT * FROM lead_audit.tree ORDER BY tree_size DESC, created_at, log_id LIMIT 1) t ON true
LEFT JOIN LATERAL (SELECT c.sealed_at, c.note FROM lead_audit.checkpoint c ORDER BY c.tree_size DESC LIMIT 1) c ON true
LEFT JOIN LATERAL (
  SELECT (SELECT count(*) FROM (SELECT FROM lead_audit.entry e WHERE e.id > t.looked_to LIMIT 100001) e) AS new,
         (SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id > t.looked_to ORDER BY e.id LIMIT 1) AS oldest
) n ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS late, min(e.occurred_at) AS oldest
  FROM lead_audit.open_gap g, unnest(g.ids) r, LATERAL (
    SELECT e.occurred_at FROM lead_audit.entry e WHERE e.id >= lower(r) AND e.id < upper(r) LIMIT 100001) e
  WHERE EXISTS (SELECT FROM unnest(g.in_progress) x WHERE pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot()))
) l ON true;

COMMENT ON COLUMN lead_audit.stats.queued IS 'Failed operations of this database that were taken into the queue since the server was started; 0 where the library is not preloaded.';

COMMENT ON COLUMN lead_audit.stats.written IS 'Of these, how many are entries now.';

COMMENT ON COLUMN lead_audit.stats.dropped IS 'Failed operations that have no entry, because the queue was full or no worker ran: the server''s log has each of them whole.';

COMMENT ON COLUMN lead_audit.stats.unsealed_entries IS 'Entries that no checkpoint has yet. Above 100,000 it counts ids, those of rolled-back transactions too. Entries of open transactions are seen by nobody: see open_ids.';

COMMENT ON COLUMN lead_audit.stats.oldest_unsealed IS 'When the oldest of them happened.';

COMMENT ON COLUMN lead_audit.stats.seal_lag IS 'How long ago that is.';

COMMENT ON COLUMN lead_audit.stats.open_ids IS 'Ids whose entries may still come, because transactions were open when sealing looked: an upper bound.';

COMMENT ON COLUMN lead_audit.stats.open_since IS 'When sealing met the oldest of them.';

COMMENT ON COLUMN lead_audit.stats.tree_size IS 'Leaves in the tree.';

COMMENT ON COLUMN lead_audit.stats.last_checkpoint_at IS 'When the newest checkpoint was made.';

COMMENT ON COLUMN lead_audit.stats.last_checkpoint_signed IS 'Whether the newest checkpoint is signed.';

COMMENT ON COLUMN lead_audit.stats.publishing_errors IS 'How often checkpoints could not be published.';

COMMENT ON COLUMN lead_audit.stats.last_publishing_error_at IS 'When that was noted last.';

COMMENT ON COLUMN lead_audit.stats.last_publishing_error IS 'Why.';

-- What the guard compares with from now on. Child tables of what was watched already are watched from the next enable() on.
SELECT lead_audit.note_relations(w.watch_id, NULL) FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');
