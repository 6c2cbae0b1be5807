-- From 1.0 to 1.1. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- The hand-written part of the update from 1.0 to 1.1: what scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Refuses the update if this session has loaded an earlier library. PostgreSQL has already set the new version.
SELECT lead_audit.require_library();

-- The DDL guard rests while its functions are exchanged. The generated part makes its triggers again.
DROP EVENT TRIGGER lead_audit_ddl;
DROP EVENT TRIGGER lead_audit_start;
DROP EVENT TRIGGER lead_audit_drop;

ALTER TABLE lead_audit.checkpoint ADD COLUMN log_id uuid;
ALTER TABLE lead_audit.tree ADD COLUMN origin text, ADD COLUMN verifier_key text;

-- Their arguments or results have changed.
DROP FUNCTION lead_audit.merge_watch(uuid, uuid);
DROP FUNCTION lead_audit.follow_joining(lead_audit.watch, oid, boolean);
DROP FUNCTION lead_audit.follow_soft_delete_column(uuid);
DROP FUNCTION lead_audit.primary_key_of(oid);

-- Version 1.0 had its internal functions in schema lead_audit.
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
ALTER FUNCTION lead_audit.make_member_triggers(oid, uuid, text, boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_trigger(regclass, text, text, text, text, text[], uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.drop_triggers(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_relations(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.last_entry() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.warn_of_earlier_triggers(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.soft_delete_column_of(regclass, name) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.require_library() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_table(regclass, name, boolean, boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.may_disable(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.relations_of_command(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.affected_relations(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_ddl(oid, boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_id_order() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_state(lead_audit.watch, text, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.follow_parting(lead_audit.watch, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.follow_reshaping(lead_audit.watch, oid[], oid[], boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.follow_ddl(boolean, text[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.command_effects() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_ddl(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_drop() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.before_attach(oid, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.guard_ddl() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.own_queue() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_columns(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, smallint[], text[], text[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.value_as(regclass, text, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.identities_of(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.former_spellings(regclass, text, uuid, bigint) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.entries_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.has_values(jsonb, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.summary_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_leads() SET SCHEMA lead_audit_internal;

REVOKE ALL ON SCHEMA lead_audit_internal FROM PUBLIC;

COMMENT ON SCHEMA lead_audit_internal IS 'Functions that lead_audit calls itself. They can change with any version. PUBLIC has no rights here.';

CREATE INDEX watch_table_name_idx ON lead_audit.watch (table_name);

COMMENT ON INDEX lead_audit.watch_table_name_idx IS 'Finds the identity of a table that was watched before.';

CREATE INDEX watched_relation_watch_id_idx ON lead_audit.watched_relation (watch_id, is_root);

COMMENT ON INDEX lead_audit.watched_relation_watch_id_idx IS 'Finds the relations of a watched table, and which is the table itself.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_change_by_others() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

COMMENT ON COLUMN lead_audit.entry.operation IS 'INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT (a row that was there when watching began), DDL or KEY (the log has another key or origin from now on); of failures also MERGE, COPY, COMMIT (a deferred check of several operations) and ROLLBACK.';

COMMENT ON COLUMN lead_audit.entry.details IS 'What only some events have: {"row_count": n} of a TRUNCATE; {"moved_from": {"table_name": ..., "table_schema": ...}} of an UPDATE that moved the row to another partition; {"executed": ...} of a DDL whose command is not the client''s text; {"command": ..., "statement_length": n} of one whose text was cut; {"old_origin": ..., "old_key": ..., "new_origin": ..., "new_key": ...} of a KEY; constraint, column, parameters and omitted_columns of a failure; {"written": [...], "written_omitted": n} of a transaction that was rolled back.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% of % is not allowed: the audit trail is append-only', TG_OP, TG_RELID::regclass
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'Entries are written by lead_audit itself and never changed.';
END
$$;

COMMENT ON SEQUENCE lead_audit.unwritten_seq IS 'How many entries could not be written (on_error = warn) and could not be counted in lead_audit.unwritten either.';

CREATE TABLE lead_audit.unwritten (entries bigint NOT NULL);

REVOKE ALL ON lead_audit.unwritten FROM PUBLIC;

COMMENT ON TABLE lead_audit.unwritten IS 'How many entries of each transaction could not be written (on_error = warn). Summed up by lead_audit.stats.';

COMMENT ON COLUMN lead_audit.unwritten.entries IS 'Entries that one committed transaction lacks.';

COMMENT ON COLUMN lead_audit.checkpoint.log_id IS 'Identity of the log, as lead_audit.tree had it. NULL if a version before 1.1 wrote it.';

COMMENT ON COLUMN lead_audit.tree.origin IS 'Origin of the last checkpoint. NULL before the first.';

COMMENT ON COLUMN lead_audit.tree.verifier_key IS 'Public key that the last checkpoint is signed with. NULL if it is not signed.';

CREATE TABLE lead_audit.inserted_entry (
  id bigint NOT NULL PRIMARY KEY,
  found_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

REVOKE ALL ON lead_audit.inserted_entry FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('lead_audit.inserted_entry', '');

COMMENT ON TABLE lead_audit.inserted_entry IS 'Internal: ids of entries that were there before the sequence gave their ids out. Somebody put them there by hand; they are never sealed.';

COMMENT ON COLUMN lead_audit.inserted_entry.id IS 'The id.';

COMMENT ON COLUMN lead_audit.inserted_entry.found_at IS 'When the entry was found.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lead_audit.inserted_entry
  FOR EACH STATEMENT EXECUTE FUNCTION lead_audit_internal.refuse_change();

ALTER TABLE lead_audit.inserted_entry ENABLE ALWAYS TRIGGER append_only;

COMMENT ON TRIGGER append_only ON lead_audit.inserted_entry IS 'Refuses UPDATE, DELETE and TRUNCATE.';

CREATE OR REPLACE VIEW lead_audit.trigger_kind (name, type, is_row) AS

VALUES ('00_lead_audit_row'::name, 29::smallint, true), ('00_lead_audit_truncate'::name, 34::smallint, false),
  ('00_lead_audit_row_before'::name, 29::smallint, true);

CREATE OR REPLACE FUNCTION lead_audit_internal.is_audit_trigger_name(name name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;

CREATE OR REPLACE VIEW lead_audit.trigger_state AS
WITH RECURSIVE a AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
tree(watch_id, relation) AS (
  SELECT a.watch_id, a.relation FROM a
  UNION SELECT t.watch_id, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
below AS (
  SELECT DISTINCT c.watch_id, c.relation
  FROM a c JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.relation JOIN a p ON p.relation = i.inhparent AND p.watch_id = c.watch_id
),

triggers AS (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on, bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM a GROUP BY a.relation
)
SELECT m.watch_id,
       min(m.relation::bigint) FILTER (WHERE b.relation IS NULL AND EXISTS (SELECT FROM a WHERE a.watch_id = m.watch_id AND a.relation = m.relation))::oid AS root,
       bool_and(coalesce(t.row_on, false)) AS row_on,
       
       bool_and(coalesce(t.truncate_on, c.relkind = 'f')) AS truncate_on
FROM tree m
JOIN pg_catalog.pg_class c ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN below b ON b.watch_id = m.watch_id AND b.relation = m.relation
LEFT JOIN triggers t ON t.relation = m.relation
GROUP BY m.watch_id;

CREATE FUNCTION lead_audit_internal.watch_row(identity uuid) RETURNS lead_audit.watch STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_watch_row';

CREATE FUNCTION lead_audit_internal.relation_row(relation oid) RETURNS lead_audit.watched_relation STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_relation_row';

CREATE FUNCTION lead_audit_internal.relations_of(identity uuid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relations_of_wrapper';

CREATE FUNCTION lead_audit_internal.roots_of(identity uuid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'roots_of_wrapper';

CREATE FUNCTION lead_audit_internal.renamed_relations() RETURNS SETOF oid LANGUAGE c AS 'MODULE_PATHNAME', 'renamed_relations_wrapper';

CREATE FUNCTION lead_audit_internal.identities_named(table_schema text, table_name text) RETURNS SETOF uuid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'identities_named_wrapper';

CREATE FUNCTION lead_audit_internal.identities_among(relations oid[]) RETURNS SETOF uuid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'identities_among_wrapper';

CREATE FUNCTION lead_audit_internal.lock_watch(identity uuid) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lock_watch_wrapper';

CREATE FUNCTION lead_audit_internal.put_watch(watching lead_audit.watch) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_put_watch';

CREATE FUNCTION lead_audit_internal.put_relation(known lead_audit.watched_relation) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_put_relation';

CREATE FUNCTION lead_audit_internal.forget_relation(relation oid) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'forget_relation_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.watch_row(uuid), lead_audit_internal.relation_row(oid), lead_audit_internal.relations_of(uuid), lead_audit_internal.roots_of(uuid),
  lead_audit_internal.renamed_relations(), lead_audit_internal.identities_named(text, text), lead_audit_internal.identities_among(oid[]), lead_audit_internal.lock_watch(uuid),
  lead_audit_internal.put_watch(lead_audit.watch), lead_audit_internal.put_relation(lead_audit.watched_relation), lead_audit_internal.forget_relation(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.watch_row(uuid) IS 'Internal: the row of lead_audit.watch, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.relation_row(oid) IS 'Internal: the row of lead_audit.watched_relation, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.relations_of(uuid) IS 'Internal: the relations in lead_audit.watched_relation of a watched table.';

COMMENT ON FUNCTION lead_audit_internal.roots_of(uuid) IS 'Internal: those of them that are the table itself: one, if any.';

COMMENT ON FUNCTION lead_audit_internal.renamed_relations() IS 'Internal: the relations in lead_audit.watched_relation that have another name or schema now.';

COMMENT ON FUNCTION lead_audit_internal.identities_named(text, text) IS 'Internal: the identities in lead_audit.watch of this name.';

COMMENT ON FUNCTION lead_audit_internal.identities_among(oid[]) IS 'Internal: the watched tables that relations belong to, by lead_audit.watched_relation or by their triggers.';

COMMENT ON FUNCTION lead_audit_internal.lock_watch(uuid) IS 'Internal: waits for other transactions that change the row of lead_audit.watch, and keeps it until this one ends.';

COMMENT ON FUNCTION lead_audit_internal.put_watch(lead_audit.watch) IS 'Internal: writes a row of lead_audit.watch.';

COMMENT ON FUNCTION lead_audit_internal.put_relation(lead_audit.watched_relation) IS 'Internal: writes a row of lead_audit.watched_relation.';

COMMENT ON FUNCTION lead_audit_internal.forget_relation(oid) IS 'Internal: removes a row of lead_audit.watched_relation; true if there was one.';

CREATE FUNCTION lead_audit_internal.class_of(relation oid) RETURNS TABLE (kind text, is_temporary boolean, is_partition boolean, table_schema text, table_name text)
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'class_of_wrapper';

CREATE FUNCTION lead_audit_internal.relation_named(table_schema text, table_name text) RETURNS oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relation_named_wrapper';

CREATE FUNCTION lead_audit_internal.column_number(relation oid, name text) RETURNS smallint STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_number_wrapper';

CREATE FUNCTION lead_audit_internal.column_name(relation oid, number smallint) RETURNS text STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_name_wrapper';

CREATE FUNCTION lead_audit_internal.column_type(relation oid, name text) RETURNS oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'column_type_wrapper';

CREATE FUNCTION lead_audit_internal.columns_of(relation oid) RETURNS text STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'columns_of_wrapper';

CREATE FUNCTION lead_audit_internal.tables_with(type oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'tables_with_wrapper';

CREATE FUNCTION lead_audit_internal.reached_from(relation oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'reached_from_wrapper';

CREATE FUNCTION lead_audit_internal.audit_triggers_of(relation oid) RETURNS TABLE (watch_id uuid, trigger_name text, is_row boolean, is_own boolean, is_on boolean)
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'audit_triggers_of_wrapper';

CREATE FUNCTION lead_audit_internal.triggers_of(relation oid) RETURNS TABLE (name text, kind smallint, is_internal boolean, is_constraint boolean) STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'triggers_of_wrapper';

CREATE FUNCTION lead_audit_internal.relation_of_trigger(trigger oid) RETURNS TABLE (relation oid, trigger_name text, is_own boolean, is_audit boolean)
STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'relation_of_trigger_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.class_of(oid), lead_audit_internal.relation_named(text, text), lead_audit_internal.column_number(oid, text),
  lead_audit_internal.column_name(oid, smallint), lead_audit_internal.column_type(oid, text), lead_audit_internal.columns_of(oid), lead_audit_internal.tables_with(oid),
  lead_audit_internal.reached_from(oid), lead_audit_internal.audit_triggers_of(oid), lead_audit_internal.triggers_of(oid), lead_audit_internal.relation_of_trigger(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.class_of(oid) IS 'Internal: kind (pg_class.relkind) and name of a relation; no row if it is gone.';

COMMENT ON FUNCTION lead_audit_internal.relation_named(text, text) IS 'Internal: the relation of a name, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_number(oid, text) IS 'Internal: the number of a column, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_name(oid, smallint) IS 'Internal: the name of a column, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.column_type(oid, text) IS 'Internal: the type of a column, without its domains, or NULL.';

COMMENT ON FUNCTION lead_audit_internal.columns_of(oid) IS 'Internal: a text that changes when the columns of the table do, or the attributes of composite types in them.';

COMMENT ON FUNCTION lead_audit_internal.tables_with(oid) IS 'Internal: the tables that have a column of the type, or of a type that is made of it.';

COMMENT ON FUNCTION lead_audit_internal.reached_from(oid) IS 'Internal: a table, its partitions and child tables, and the tables that have columns of their row types; of a composite type, the latter.';

COMMENT ON FUNCTION lead_audit_internal.audit_triggers_of(oid) IS 'Internal: the audit triggers of a relation, as the view audit_trigger has them.';

COMMENT ON FUNCTION lead_audit_internal.triggers_of(oid) IS 'Internal: all triggers of a relation; kind is pg_trigger.tgtype.';

COMMENT ON FUNCTION lead_audit_internal.relation_of_trigger(oid) IS 'Internal: the table of a trigger; no row if it is gone.';

CREATE FUNCTION lead_audit_internal.change_watch(identity uuid, changes jsonb) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

COMMENT ON FUNCTION lead_audit_internal.change_watch(uuid, jsonb) IS 'Internal: changes columns of a row of lead_audit.watch.';

CREATE OR REPLACE FUNCTION lead_audit_internal.is_complete(relation oid, identity uuid) RETURNS boolean LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         -- A foreign table has no TRUNCATE triggers.
         AND (coalesce(bool_or(NOT a.is_row AND a.is_on), false) OR EXISTS (SELECT FROM lead_audit_internal.class_of($1) c WHERE c.kind = 'f'))
  FROM lead_audit_internal.audit_triggers_of($1) a WHERE a.watch_id = $2
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.members_of(root oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'members_of_wrapper';

CREATE OR REPLACE FUNCTION lead_audit_internal.ancestors_of(member oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'ancestors_of_wrapper';

CREATE FUNCTION lead_audit_internal.parents_of(member oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'parents_of_wrapper';

CREATE FUNCTION lead_audit_internal.lock_members(root oid) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lock_members_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.members_of(oid), lead_audit_internal.ancestors_of(oid), lead_audit_internal.parents_of(oid), lead_audit_internal.lock_members(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.members_of(oid) IS 'Internal: a table, its partitions and its child tables, at any depth. Temporary tables are not among them.';

COMMENT ON FUNCTION lead_audit_internal.parents_of(oid) IS 'Internal: the tables that a table is directly a partition or a child of.';

COMMENT ON FUNCTION lead_audit_internal.lock_members(oid) IS 'Internal: locks a table, its partitions and its child tables as CREATE TRIGGER does. Nobody adds another one until the transaction ends.';

CREATE FUNCTION lead_audit_internal.root_of(relation oid, identity uuid) RETURNS oid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT min(t.r::bigint)::oid FROM (SELECT $1 UNION ALL SELECT lead_audit_internal.ancestors_of($1)) t(r)
  WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(t.r) a WHERE a.watch_id = $2)
    AND NOT EXISTS (SELECT FROM lead_audit_internal.parents_of(t.r) p CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(p) a WHERE a.watch_id = $2)
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.root_of(oid, uuid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.root_of(oid, uuid) IS 'Internal: the uppermost table with triggers of this identity, the relation or one above it.';

CREATE OR REPLACE FUNCTION lead_audit_internal.shape_of(relation oid) RETURNS bytea LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(convert_to(lead_audit_internal.columns_of($1), 'UTF8'))
$$;

COMMENT ON FUNCTION lead_audit_internal.shape_of(oid) IS 'Internal: a digest of the table''s columns, and of the attributes of composite types in them.';

CREATE FUNCTION lead_audit_internal.primary_key_of(relation oid) RETURNS TABLE (attnums smallint[], names text[], types text[])
STRICT ROWS 1 LANGUAGE c AS 'MODULE_PATHNAME', 'primary_key_of_wrapper';

REVOKE ALL ON FUNCTION lead_audit_internal.primary_key_of(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.primary_key_of(oid) IS 'Internal: the columns of the table''s primary key, by their numbers.';

CREATE OR REPLACE FUNCTION lead_audit_internal.watch_of(relation regclass) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of($1) a ORDER BY a.trigger_name COLLATE "C" LIMIT 1),
    (SELECT m.watch_id FROM lead_audit_internal.relation_row($1) m),
    (SELECT w.watch_id FROM lead_audit_internal.class_of($1) c CROSS JOIN LATERAL lead_audit_internal.identities_named(c.table_schema, c.table_name) i
       CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
     WHERE w.state NOT IN ('dropped', 'merged') ORDER BY w.enabled_at DESC LIMIT 1))
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.watched_above(member oid) RETURNS oid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT r FROM lead_audit_internal.audit_triggers_of($1) a CROSS JOIN LATERAL lead_audit_internal.root_of($1, a.watch_id) r WHERE r <> $1 LIMIT 1
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.make_triggers(relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stray record;
BEGIN
  FOR stray IN SELECT a.trigger_name FROM lead_audit_internal.audit_triggers_of($1) a
               WHERE a.is_own AND a.trigger_name NOT IN ('00_lead_audit_row', '00_lead_audit_truncate')
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', stray.trigger_name, $1);
  END LOOP;
  PERFORM lead_audit_internal.make_way(m) FROM lead_audit_internal.members_of($1) m;
  -- What has an identity of its own, as a child table can have, keeps it.
  PERFORM lead_audit_internal.make_member_triggers(m, $2, $3, m = $1::oid)
  FROM (SELECT m FROM lead_audit_internal.members_of($1) m
        WHERE NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(m) a WHERE a.is_row AND a.is_own AND a.watch_id <> $2)
        ORDER BY m <> $1::oid) m;
END
$$;

CREATE FUNCTION lead_audit_internal.make_way(relation regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  occupant record;
BEGIN
  FOR occupant IN
    SELECT t.name, (SELECT min(n) FROM generate_series(1, 1000) n
                    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.triggers_of($1) u WHERE u.name = 'not_' || t.name || '_' || n)) AS free
    FROM lead_audit_internal.triggers_of($1) t
    WHERE t.is_constraint AND lead_audit_internal.is_audit_trigger_name(t.name::name)
  LOOP
    EXECUTE format('ALTER TRIGGER %I ON %s RENAME TO %I', occupant.name, $1, 'not_' || occupant.name || '_' || occupant.free);
    RAISE WARNING 'constraint trigger % of % is called % now', occupant.name, $1, 'not_' || occupant.name || '_' || occupant.free
      USING DETAIL = 'It had the name of an audit trigger.';
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.make_way(regclass) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.make_way(regclass) IS 'Internal: gives constraint triggers that have the name of an audit trigger another one.';

CREATE OR REPLACE FUNCTION lead_audit_internal.make_member_triggers(member oid, watch_id uuid, soft_delete_column text, is_root boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
BEGIN
  SELECT * INTO class FROM lead_audit_internal.class_of(member);
  IF is_root OR NOT class.is_partition THEN
    PERFORM lead_audit_internal.make_trigger(member, '00_lead_audit_row', 'AFTER INSERT OR UPDATE OR DELETE', 'ROW', 'capture',
                                    ARRAY[watch_id::text, coalesce(soft_delete_column, '')], watch_id);
  END IF;
  -- A foreign table has no TRUNCATE triggers.
  IF class.kind <> 'f' THEN
    PERFORM lead_audit_internal.make_truncate_trigger(member, watch_id);
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.make_trigger(relation regclass, name text, events text, level text, function text, arguments text[], identity uuid)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION lead_audit.%I(%s)', name, events, relation, level, function,
                 (SELECT string_agg(quote_literal(a), ', ' ORDER BY n) FROM unnest(arguments) WITH ORDINALITY u(a, n)));
  EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', relation,
                 CASE WHEN (lead_audit_internal.watch_row(identity)).replica THEN 'ALWAYS' END, name);
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.make_truncate_trigger(relation regclass, watch_id uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.make_trigger($1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate', ARRAY[$2::text], $2)
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.drop_triggers(identity uuid, relations oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  own record;
BEGIN
  FOR own IN SELECT r::regclass AS on_relation, a.trigger_name FROM (SELECT DISTINCT u FROM unnest(relations) u) d(r)
             CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(r) a
             WHERE a.watch_id = identity AND a.is_own ORDER BY a.is_row DESC
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', own.trigger_name, own.on_relation);
  END LOOP;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) IS 'Internal: drops the audit triggers of an identity that some relations have.';

CREATE OR REPLACE FUNCTION lead_audit_internal.note_relations(identity uuid, touched oid[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r oid;
  class record;
  known lead_audit.watched_relation;
  now_known lead_audit.watched_relation;
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
BEGIN
  FOREACH r IN ARRAY coalesce(touched, array(SELECT DISTINCT a.relation FROM lead_audit.audit_trigger a WHERE a.watch_id = identity)) LOOP
    SELECT * INTO class FROM lead_audit_internal.class_of(r);
    CONTINUE WHEN NOT FOUND;
    known := lead_audit_internal.relation_row(r);
    now_known := known;
    IF EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(r) a WHERE a.watch_id = identity AND a.is_row) THEN
      now_known.relation := r;
      now_known.watch_id := identity;
      now_known.is_root := r = lead_audit_internal.root_of(r, identity);
      now_known.soft_delete_attnum := lead_audit_internal.column_number(r, watching.soft_delete_column);
      now_known.is_complete := lead_audit_internal.is_complete(r, identity);
      now_known.shape := lead_audit_internal.shape_of(r);
      SELECT k.attnums, k.names, k.types INTO now_known.key_attnums, now_known.key_names, now_known.key_types FROM lead_audit_internal.primary_key_of(r) k;
      now_known.is_restored := coalesce(known.is_restored, false);
    ELSIF known.watch_id = identity THEN
      -- Triggers that are gone say nothing of their relation.
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
    IF now_known.is_root AND watching.state <> 'changing' AND (watching.table_schema, watching.table_name) <> (class.table_schema, class.table_name) THEN
      PERFORM lead_audit_internal.change_watch(identity, jsonb_build_object('table_schema', class.table_schema, 'table_name', class.table_name));
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) IS 'Internal: takes note of those of the relations that belong to a watched table; with NULL, of all that have its triggers.';

CREATE OR REPLACE FUNCTION lead_audit_internal.last_entry() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s);
EXCEPTION WHEN undefined_table THEN
  -- Somebody has put it away; no entry is written then.
  RETURN 0;
END
$$;

CREATE FUNCTION lead_audit_internal.merge_watch(former uuid, identity uuid, relations oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit_internal.change_watch(former, '{"state": "changing"}');
  PERFORM lead_audit_internal.drop_triggers(former, relations || array(SELECT lead_audit_internal.relations_of(former)));
  INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry) VALUES (identity, former, lead_audit_internal.last_entry());
  PERFORM lead_audit_internal.forget_relation(r) FROM lead_audit_internal.relations_of(former) r;
  PERFORM lead_audit_internal.change_watch(former, jsonb_build_object('state', 'merged', 'ended_at', clock_timestamp()));
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.merge_watch(uuid, uuid, oid[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.merge_watch(uuid, uuid, oid[]) IS 'Internal: a table that was watched on its own, with these relations, is from now on watched as a partition of another.';

CREATE OR REPLACE FUNCTION lead_audit_internal.warn_of_earlier_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  earlier text;
BEGIN
  SELECT string_agg(quote_ident(t.name), ', ') INTO earlier FROM lead_audit_internal.triggers_of(relation) t
  WHERE NOT t.is_internal AND t.kind & 67 = 1 AND t.name COLLATE "C" < '00_lead_audit_row';
  IF earlier IS NOT NULL THEN
    RAISE WARNING 'triggers of % run before the audit trigger: %', relation, earlier
      USING DETAIL = 'AFTER ROW triggers run in the order of their names. If one of these writes the same row again, that entry gets the lower id.',
            HINT = 'Give them names that sort after 00_lead_audit_row.';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.soft_delete_column_of(relation regclass, wanted name) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found_type regtype := lead_audit_internal.column_type(relation, coalesce(wanted, 'is_deleted'));
BEGIN
  IF wanted IS NULL THEN
    RETURN CASE WHEN found_type = 'boolean'::regtype THEN 'is_deleted' END;
  ELSIF found_type IS NULL THEN
    RAISE EXCEPTION 'column "%" of relation % does not exist', wanted, relation
      USING ERRCODE = 'undefined_column', HINT = 'soft_delete_column names the boolean column that turns true when a row is soft-deleted.';
  ELSIF found_type <> 'boolean'::regtype THEN
    RAISE EXCEPTION 'column "%" of relation % is of type %, not boolean', wanted, relation, found_type
      USING ERRCODE = 'datatype_mismatch', HINT = 'soft_delete_column names the boolean column that turns true when a row is soft-deleted.';
  END IF;
  RETURN wanted;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.watch_table(relation regclass, soft_delete_column name, baseline boolean, replica boolean)
RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
  watching lead_audit.watch;
  wanted lead_audit.watch;
  above regclass;
  part record;
  members oid[];
BEGIN
  PERFORM lead_audit_internal.require_library();
  SELECT * INTO class FROM lead_audit_internal.class_of(relation);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'relation to watch does not exist' USING ERRCODE = 'undefined_table',
      HINT = 'Call it as SELECT lead_audit.enable(''schema.table'');';
  ELSIF class.kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% cannot be watched: it is not a table', relation USING ERRCODE = 'wrong_object_type';
  ELSIF class.is_temporary THEN
    RAISE EXCEPTION '% cannot be watched: it is a temporary table', relation USING ERRCODE = 'wrong_object_type',
      DETAIL = 'A temporary table ends with its session; nobody else can see what is in it.';
  ELSIF class.table_schema IN ('pg_catalog', 'information_schema', 'lead_audit') THEN
    RAISE EXCEPTION '% cannot be watched: it belongs to schema %', relation, class.table_schema USING ERRCODE = 'wrong_object_type';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  PERFORM lead_audit_internal.lock_members(relation);
  members := array(SELECT lead_audit_internal.members_of(relation));

  above := lead_audit_internal.watched_above(relation);
  IF above IS NOT NULL THEN
    IF soft_delete_column IS NOT NULL OR baseline OR replica IS NOT NULL THEN
      RAISE EXCEPTION '% is watched as a part of %', relation, above USING ERRCODE = 'wrong_object_type',
        DETAIL = 'Partitions and child tables are watched the way the table above them is.',
        HINT = format('Call lead_audit.enable() for %s.', above);
    END IF;
    RAISE NOTICE '% is watched already, as a part of %', relation, above;
    RETURN lead_audit_internal.watch_of(relation);
  END IF;

  wanted.soft_delete_column := lead_audit_internal.soft_delete_column_of(relation, soft_delete_column);
  watching := lead_audit_internal.watch_row(lead_audit_internal.watch_of(relation));
  IF watching.watch_id IS NULL THEN
    -- Triggers that came with a restored table keep the identity that they carry.
    wanted.watch_id := coalesce(lead_audit_internal.watch_of(relation), gen_random_uuid());
    wanted.replica := coalesce(replica, false);
    wanted.table_schema := class.table_schema;
    wanted.table_name := class.table_name;
    wanted.state := 'changing';
    wanted.enabled_at := clock_timestamp();
    PERFORM lead_audit_internal.put_watch(wanted);
  ELSE
    wanted.watch_id := watching.watch_id;
    wanted.replica := coalesce(replica, watching.replica);
    IF soft_delete_column IS NULL AND watching.state = 'on' THEN
      wanted.soft_delete_column := watching.soft_delete_column;
    END IF;
    PERFORM lead_audit_internal.change_watch(watching.watch_id, jsonb_build_object(
      'table_schema', class.table_schema, 'table_name', class.table_name, 'soft_delete_column', wanted.soft_delete_column,
      'replica', wanted.replica, 'state', 'changing', 'ended_at', NULL,
      'enabled_at', CASE watching.state WHEN 'off' THEN clock_timestamp() ELSE watching.enabled_at END));
    -- That watching begins is no entry. That it goes on after a gap, or otherwise than before, is one.
    IF watching.state <> 'on' OR (wanted.soft_delete_column, wanted.replica) IS DISTINCT FROM (watching.soft_delete_column, watching.replica) THEN
      PERFORM lead_audit_internal.write_ddl(watching.watch_id, relation, class.table_schema, class.table_name, current_query());
    END IF;
  END IF;

  FOR part IN
    SELECT DISTINCT a.watch_id, m AS relation, c.table_schema, c.table_name
    FROM unnest(members) m CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
    WHERE a.is_row AND a.is_own AND a.watch_id <> wanted.watch_id AND c.is_partition AND m <> relation::oid
    ORDER BY c.table_schema, c.table_name
  LOOP
    PERFORM lead_audit_internal.write_ddl(part.watch_id, part.relation, part.table_schema, part.table_name, current_query());
    PERFORM lead_audit_internal.merge_watch(part.watch_id, wanted.watch_id, array(SELECT lead_audit_internal.members_of(part.relation)));
  END LOOP;

  IF (wanted.soft_delete_column, wanted.replica) IS DISTINCT FROM (watching.soft_delete_column, watching.replica)
     OR EXISTS (SELECT FROM unnest(members) m WHERE NOT lead_audit_internal.is_complete(m, wanted.watch_id))
     OR EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(relation) a WHERE NOT a.is_on) THEN
    PERFORM lead_audit_internal.make_triggers(relation, wanted.watch_id, wanted.soft_delete_column);
  END IF;
  PERFORM lead_audit_internal.note_relations(wanted.watch_id, members);
  PERFORM lead_audit_internal.warn_of_earlier_triggers(relation);

  IF baseline AND watching.baseline_at IS NOT NULL THEN
    RAISE NOTICE '% already has a baseline, written at %', relation, watching.baseline_at;
  ELSIF baseline THEN
    PERFORM lead_audit_internal.write_baseline(m, wanted.watch_id, coalesce(wanted.soft_delete_column, ''))
    FROM (SELECT m FROM unnest(members) m CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
          WHERE c.kind = 'r' AND lead_audit_internal.is_complete(m, wanted.watch_id) ORDER BY m) m;
    PERFORM lead_audit_internal.change_watch(wanted.watch_id, jsonb_build_object('baseline_at', clock_timestamp()));
  END IF;
  PERFORM lead_audit_internal.change_watch(wanted.watch_id, '{"state": "on"}');
  RETURN wanted.watch_id;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit.enable(relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $2, $3, NULL)
$$;

CREATE OR REPLACE FUNCTION lead_audit.enable(relation regclass, replica boolean, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $3, $4, $2)
$$;

CREATE OR REPLACE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := lead_audit_internal.watch_of(relation);
  above regclass;
  carriers oid[];
BEGIN
  PERFORM lead_audit_internal.require_library();
  IF NOT EXISTS (SELECT FROM lead_audit_internal.class_of(relation)) THEN
    RAISE EXCEPTION 'relation to stop watching does not exist' USING ERRCODE = 'undefined_table';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  carriers := array(SELECT lead_audit_internal.members_of(relation) UNION SELECT lead_audit_internal.relations_of(identity));
  above := lead_audit_internal.watched_above(relation);
  IF above IS NOT NULL THEN
    RAISE EXCEPTION '% is watched as a part of %', relation, above USING ERRCODE = 'wrong_object_type',
      DETAIL = 'Partitions and child tables are watched as long as the table above them is.',
      HINT = format('Call lead_audit.disable() for %s, or take the table out of it first.', above);
  END IF;
  IF NOT EXISTS (SELECT FROM unnest(carriers) m CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a WHERE a.watch_id = identity)
     AND coalesce((lead_audit_internal.watch_row(identity)).state, 'off') = 'off' THEN
    RETURN false;
  END IF;
  PERFORM lead_audit_internal.change_watch(identity, '{"state": "changing"}');
  PERFORM lead_audit_internal.write_ddl(identity, relation, c.table_schema, c.table_name, current_query()) FROM lead_audit_internal.class_of(relation) c;
  PERFORM lead_audit_internal.drop_triggers(identity, carriers);
  -- The table itself stays known, so that its history is found if it is renamed.
  PERFORM lead_audit_internal.forget_relation(r) FROM lead_audit_internal.relations_of(identity) r WHERE NOT (lead_audit_internal.relation_row(r)).is_root;
  PERFORM lead_audit_internal.change_watch(identity, jsonb_build_object('state', 'off', 'ended_at', clock_timestamp(), 'baseline_at', NULL));
  RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.may_disable(who oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.relations_of_command(is_drop boolean) RETURNS TABLE (relation oid, trigger_id oid, command text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF is_drop THEN
    RETURN QUERY
      -- A column belongs to its relation; triggers and constraints say by name whose they were.
      SELECT d.objid, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      WHERE d.classid = 'pg_class'::regclass AND NOT d.is_temporary AND EXISTS (SELECT FROM lead_audit_internal.class_of(d.objid))
      UNION ALL
      SELECT r, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d CROSS JOIN LATERAL lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
      WHERE d.object_type IN ('trigger', 'table constraint') AND NOT d.is_temporary AND r IS NOT NULL;
  ELSE
    RETURN QUERY
      SELECT c.objid, NULL::oid, c.command_tag FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass
      UNION ALL
      SELECT t.relation, c.objid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.objid) t WHERE c.classid = 'pg_trigger'::regclass
      UNION ALL
      SELECT t, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c CROSS JOIN LATERAL lead_audit_internal.tables_with(c.objid) t
      WHERE c.classid = 'pg_type'::regclass AND c.command_tag = 'ALTER TYPE'
      UNION ALL
      -- The tables in a schema are not among the objects of a command about it.
      SELECT r, NULL::oid, c.command_tag
      FROM (SELECT c.command_tag FROM pg_event_trigger_ddl_commands() c WHERE c.command_tag = 'ALTER SCHEMA' LIMIT 1) c
      CROSS JOIN LATERAL lead_audit_internal.renamed_relations() r;
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.affected_relations(is_drop boolean) RETURNS SETOF oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM (SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command($1) c) c CROSS JOIN LATERAL lead_audit_internal.reached_from(c.relation) m
$$;

COMMENT ON FUNCTION lead_audit_internal.relations_of_command(boolean) IS 'Internal to the DDL guard: the relations that the command is about.';

COMMENT ON FUNCTION lead_audit_internal.affected_relations(boolean) IS 'Internal to the DDL guard: those relations, their partitions and child tables, and the tables that have columns of their row types.';

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_ddl(invoker oid, is_drop boolean) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused text;
  is_parting boolean := 'parted' = ANY (lead_audit_internal.command_effects());
BEGIN
  IF lead_audit_internal.may_disable(invoker) THEN
    RETURN;
  END IF;
  SELECT f::regclass::text INTO refused
  FROM lead_audit_internal.affected_relations(is_drop) f
  WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(f) a CROSS JOIN LATERAL lead_audit_internal.watch_row(a.watch_id) w
                WHERE w.state = 'on' AND NOT a.is_on)
     -- What leaves the table above it loses triggers by that, and is looked after by follow_ddl(). That others are off already, as a
     -- superuser may have them, does not give these away.
     OR EXISTS (SELECT FROM lead_audit_internal.relation_row(f) m CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
                WHERE w.state IN ('on', 'disabled') AND m.is_complete AND NOT lead_audit_internal.is_complete(f, m.watch_id)
                  AND (NOT is_parting OR m.is_root OR EXISTS (SELECT FROM lead_audit_internal.ancestors_of(f) p CROSS JOIN LATERAL lead_audit_internal.relation_row(p) k
                                            WHERE k.watch_id = m.watch_id)))
  LIMIT 1;
  IF refused IS NULL AND NOT is_drop THEN
    SELECT t.relation::regclass::text INTO refused
    FROM lead_audit_internal.relations_of_command(false) c CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.trigger_id) t
    -- A trigger of that name would be in the way of the one that a watched table needs.
    WHERE t.is_own AND (t.is_audit OR lead_audit_internal.is_audit_trigger_name(t.trigger_name::name))
    LIMIT 1;
  END IF;
  IF refused IS NULL AND is_drop AND NOT is_parting THEN
    SELECT r::regclass::text INTO refused
    FROM pg_event_trigger_dropped_objects() d CROSS JOIN LATERAL lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE d.object_type = 'trigger' AND NOT d.is_temporary AND lead_audit_internal.is_audit_trigger_name(d.address_names[3]::name) AND w.state IN ('on', 'disabled')
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

CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_id_order() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Asked first: what follows needs tables that a repair may be about to bring back.
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
                 WHERE c.classid = 'pg_class'::regclass AND c.objid = to_regclass('lead_audit.entry_id_seq')) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = to_regclass('lead_audit.entry_id_seq')
             AND ((s.seqcache, s.seqincrement) <> (1, 1) OR s.seqcycle))
     OR lead_audit_internal.last_entry() < (SELECT max(e.id) FROM lead_audit.entry e)
  THEN
    RAISE EXCEPTION 'sequence lead_audit.entry_id_seq cannot be altered like this'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'Ids of entries are the order of the events: they are given out one by one, each higher than all before it.',
            HINT = 'Leave it at INCREMENT 1 CACHE 1 NO CYCLE, and its value above the highest id in lead_audit.entry.';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.note_state(watching lead_audit.watch, new_state text, relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit_internal.write_ddl(watching.watch_id, relation, watching.table_schema, watching.table_name, current_query());
  PERFORM lead_audit_internal.change_watch(watching.watch_id, jsonb_build_object(
    'state', new_state, 'ended_at', CASE new_state WHEN 'dropped' THEN clock_timestamp() END));
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.follow_parting(watching lead_audit.watch, root oid) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members oid[] := array(SELECT lead_audit_internal.members_of(root));
  gone oid[] := array(SELECT r FROM lead_audit_internal.relations_of(watching.watch_id) r CROSS JOIN LATERAL lead_audit_internal.class_of(r)
                      WHERE r <> ALL (members) AND NOT (lead_audit_internal.relation_row(r)).is_root);
  top record;
  parted oid[];
  fresh lead_audit.watch;
BEGIN
  FOR top IN
    SELECT m.* FROM unnest(gone) g CROSS JOIN LATERAL lead_audit_internal.relation_row(g) m
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(g) p WHERE p = ANY (gone))
  LOOP
    -- Another session may be about to give one of them a child table.
    PERFORM lead_audit_internal.lock_members(top.relation);
    parted := array(SELECT lead_audit_internal.members_of(top.relation));
    PERFORM lead_audit_internal.write_ddl(watching.watch_id, top.relation, top.table_schema, top.table_name, current_query());
    PERFORM lead_audit_internal.drop_triggers(watching.watch_id, parted);
    PERFORM lead_audit_internal.forget_relation(p) FROM unnest(parted) p WHERE (lead_audit_internal.relation_row(p)).watch_id = watching.watch_id;
    IF watching.state = 'on' THEN
      fresh := watching;
      fresh.watch_id := gen_random_uuid();
      fresh.table_schema := top.table_schema;
      fresh.table_name := top.table_name;
      fresh.state := 'changing';
      fresh.enabled_at := clock_timestamp();
      PERFORM lead_audit_internal.put_watch(fresh);
      INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry) VALUES (fresh.watch_id, watching.watch_id, lead_audit_internal.last_entry());
      PERFORM lead_audit_internal.make_triggers(top.relation, fresh.watch_id, fresh.soft_delete_column);
      PERFORM lead_audit_internal.note_relations(fresh.watch_id, parted);
      PERFORM lead_audit_internal.change_watch(fresh.watch_id, '{"state": "on"}');
    END IF;
    RETURN NEXT top.relation;
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit_internal.is_newcomer(relation oid, watching lead_audit.watch, root oid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT root = ANY (array(SELECT lead_audit_internal.ancestors_of($1)))
         AND (lead_audit_internal.relation_row($1)).watch_id IS DISTINCT FROM ($2).watch_id
         AND NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a WHERE a.is_row AND a.watch_id <> ($2).watch_id)
$$;

CREATE FUNCTION lead_audit_internal.follow_joining(watching lead_audit.watch, root oid, affected oid[], effects text[]) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh oid[] := array(SELECT f FROM unnest(affected) f WHERE lead_audit_internal.is_newcomer(f, watching, root));
  top record;
BEGIN
  IF fresh = '{}' THEN
    RETURN;
  END IF;
  -- Another session may be about to give one of them a child table.
  PERFORM lead_audit_internal.lock_members(f) FROM unnest(fresh) f;
  fresh := array(SELECT DISTINCT m FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.members_of(f) m WHERE lead_audit_internal.is_newcomer(m, watching, root));
  -- Watched once, under an identity of its own that ended.
  INSERT INTO lead_audit.earlier_identity (watch_id, earlier_id, until_entry)
  SELECT watching.watch_id, k.watch_id, lead_audit_internal.last_entry()
  FROM (SELECT DISTINCT m.watch_id FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.relation_row(f) m WHERE m.watch_id IS NOT NULL) k;
  PERFORM lead_audit_internal.make_way(f) FROM unnest(fresh) f;
  PERFORM lead_audit_internal.make_member_triggers(f, watching.watch_id, watching.soft_delete_column, false) FROM unnest(fresh) f;
  IF effects && '{joined,found}' THEN
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c
      WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(f) p WHERE p = ANY (fresh))
    LOOP
      PERFORM lead_audit_internal.write_ddl(watching.watch_id, top.relation, top.table_schema, top.table_name, current_query());
      -- The worker runs no code of the table's owner.
      IF watching.baseline_at IS NOT NULL AND 'joined' = ANY (effects) THEN
        PERFORM lead_audit_internal.write_baseline(m, watching.watch_id, coalesce(watching.soft_delete_column, ''))
        FROM lead_audit_internal.members_of(top.relation) m CROSS JOIN LATERAL lead_audit_internal.class_of(m) c WHERE c.kind = 'r' AND m = ANY (fresh);
      END IF;
      RETURN NEXT top.relation;
    END LOOP;
  ELSE
    -- A table that the command has made has no rows, unless code that it executed (of an index, a constraint or a partition key) has
    -- written some while the triggers were not there yet.
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c WHERE c.kind = 'r'
    LOOP
      IF lead_audit_internal.write_baseline(top.relation, watching.watch_id, coalesce(watching.soft_delete_column, '')) > 0 THEN
        PERFORM lead_audit_internal.write_ddl(watching.watch_id, top.relation, top.table_schema, top.table_name, current_query());
        RETURN NEXT top.relation;
      END IF;
    END LOOP;
  END IF;
  PERFORM lead_audit_internal.note_relations(watching.watch_id, fresh);
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.follow_parting(lead_audit.watch, oid), lead_audit_internal.is_newcomer(oid, lead_audit.watch, oid),
  lead_audit_internal.follow_joining(lead_audit.watch, oid, oid[], text[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.is_newcomer(oid, lead_audit.watch, oid) IS 'Internal to the DDL guard: whether a relation is below the root of a watched table and does not belong to any yet.';

COMMENT ON FUNCTION lead_audit_internal.follow_joining(lead_audit.watch, oid, oid[], text[]) IS 'Internal to the DDL guard: partitions and child tables that came to a watched table. Returns those that have an entry now.';

CREATE OR REPLACE FUNCTION lead_audit_internal.follow_reshaping(watching lead_audit.watch, affected oid[], recorded oid[], rewritten boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed oid[] := array(
    SELECT m.relation FROM unnest(affected) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m CROSS JOIN LATERAL lead_audit_internal.class_of(r) c
    WHERE m.watch_id = watching.watch_id
      AND ((m.table_schema, m.table_name) <> (c.table_schema, c.table_name)
           OR m.shape IS NOT NULL
              AND (rewritten OR m.shape <> lead_audit_internal.shape_of(r)
                   -- A restore with several jobs can bring the key after the triggers.
                   OR m.key_attnums <> (SELECT k.attnums FROM lead_audit_internal.primary_key_of(r) k) AND NOT (m.is_restored AND m.key_attnums = '{}'))));
  known lead_audit.watched_relation;
  top record;
BEGIN
  FOR known IN SELECT m.* FROM unnest(changed) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m WHERE m.is_restored LOOP
    known.is_restored := false;
    PERFORM lead_audit_internal.put_relation(known);
  END LOOP;
  FOR top IN
    SELECT m.*, k.attnums, k.names, k.types
    FROM unnest(changed) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m CROSS JOIN LATERAL lead_audit_internal.primary_key_of(r) k
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(r) p WHERE p = ANY (changed))
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    IF NOT top.relation = ANY (recorded) THEN
      PERFORM lead_audit_internal.write_ddl(top.watch_id, top.relation, top.table_schema, top.table_name, current_query());
    END IF;
    IF top.is_root AND top.key_attnums IS NOT NULL AND (top.attnums, top.names, top.types) IS DISTINCT FROM (top.key_attnums, top.key_names, top.key_types) THEN
      INSERT INTO lead_audit.former_key (watch_id, until_entry, column_names, column_types, same_columns)
      VALUES (top.watch_id, lead_audit_internal.last_entry(), top.key_names, top.key_types, top.attnums = top.key_attnums)
      ON CONFLICT DO NOTHING;
    END IF;
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit_internal.is_guarded(relation oid) RETURNS boolean LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a WHERE lead_audit_internal.is_complete($1, a.watch_id))
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.is_guarded(oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.is_guarded(oid) IS 'Internal: whether the relation has the audit triggers of some identity, and all are on.';

CREATE FUNCTION lead_audit_internal.follow_watch(watching lead_audit.watch, affected oid[], effects text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root oid := (SELECT min(r::bigint)::oid FROM lead_audit_internal.roots_of(watching.watch_id) r CROSS JOIN LATERAL lead_audit_internal.class_of(r));
  recorded oid[] := '{}';
  known oid[];
  note lead_audit.watched_relation;
BEGIN
  IF watching.state IN ('on', 'disabled') AND root IS NOT NULL THEN
    IF effects && '{parted,found}' THEN
      recorded := recorded || array(SELECT lead_audit_internal.follow_parting(watching, root));
    END IF;
    IF effects && '{made,joined,found}' THEN
      recorded := recorded || array(SELECT lead_audit_internal.follow_joining(watching, root, affected, effects));
    END IF;
    -- A relation that a restore brought is taken note of when a command first touches it; what that command did to its
    -- triggers (pg_dump --disable-triggers switches them off while it loads the data) is the restore's doing.
    IF watching.state = 'on' AND EXISTS (SELECT FROM unnest(affected) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m CROSS JOIN LATERAL lead_audit_internal.class_of(r)
                                         WHERE m.watch_id = watching.watch_id AND m.is_complete AND NOT lead_audit_internal.is_complete(r, m.watch_id)) THEN
      PERFORM lead_audit_internal.note_state(watching, 'disabled', root);
      recorded := recorded || affected;
    ELSIF watching.state = 'disabled' AND 'mended' = ANY (effects)
          AND NOT EXISTS (SELECT FROM lead_audit_internal.members_of(root) m WHERE NOT lead_audit_internal.is_guarded(m)) THEN
      PERFORM lead_audit_internal.note_state(watching, 'on', root);
      recorded := recorded || affected;
    END IF;
    PERFORM lead_audit_internal.follow_reshaping(watching, affected, recorded, 'rewritten' = ANY (effects));
    PERFORM lead_audit_internal.follow_soft_delete_column(watching.watch_id, root);
  END IF;
  known := array(SELECT r FROM unnest(affected) r WHERE (lead_audit_internal.relation_row(r)).watch_id = watching.watch_id);
  PERFORM lead_audit_internal.note_relations(watching.watch_id, affected);
  FOR note IN SELECT m.* FROM unnest(affected) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
              WHERE m.watch_id = watching.watch_id AND r <> ALL (known) LOOP
    note.is_restored := true;
    PERFORM lead_audit_internal.put_relation(note);
  END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.follow_ddl(is_drop boolean, effects text[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(is_drop));
  concerned oid[] := affected;
  watching lead_audit.watch;
BEGIN
  IF NOT is_drop AND EXISTS (SELECT FROM lead_audit_internal.relations_of_command(is_drop) c WHERE c.command <> 'CREATE TRIGGER') THEN
    effects := effects || '{mended}'::text[];
  END IF;
  IF effects && '{made,joined}' THEN
    concerned := affected || array(SELECT DISTINCT a FROM unnest(affected) f CROSS JOIN LATERAL lead_audit_internal.ancestors_of(f) a);
  END IF;
  FOR watching IN
    SELECT w.* FROM lead_audit_internal.identities_among(concerned) i CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
    WHERE w.state <> 'changing' ORDER BY w.enabled_at
  LOOP
    PERFORM lead_audit_internal.follow_watch(watching, affected, effects);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.follow_watch(lead_audit.watch, oid[], text[]), lead_audit_internal.follow_ddl(boolean, text[]) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.follow_watch(lead_audit.watch, oid[], text[]) IS 'Internal to the DDL guard: compares relations of a watched table with what is known of them, records the difference and takes note of it. effects: those of command_effects(); mended: triggers that are on again end the state disabled; found: by lead_audit.check_watched(), after whatever happened.';

COMMENT ON FUNCTION lead_audit_internal.follow_ddl(boolean, text[]) IS 'Internal to the DDL guard: does so for the watched tables that a command touched.';

CREATE FUNCTION lead_audit_internal.follow_soft_delete_column(identity uuid, root oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
  renamed text := lead_audit_internal.column_name(root, (lead_audit_internal.relation_row(root)).soft_delete_attnum);
BEGIN
  IF watching.state = 'on' AND renamed <> watching.soft_delete_column THEN
    PERFORM lead_audit_internal.change_watch(identity, jsonb_build_object('soft_delete_column', renamed));
    PERFORM lead_audit_internal.make_triggers(root, identity, renamed);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.follow_soft_delete_column(uuid, oid) FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.follow_soft_delete_column(uuid, oid) IS 'Internal to the DDL guard: a renamed soft-delete column stays the soft-delete column.';

COMMENT ON FUNCTION lead_audit_internal.command_effects() IS 'Internal to the DDL guard: what the command does besides that only its text tells. made: a partition or child table was created; joined: a table became one; parted: one is none any more; rewritten: values of a column are others.';

CREATE OR REPLACE FUNCTION lead_audit_internal.after_ddl(made_partition boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
BEGIN
  PERFORM lead_audit_internal.refuse_id_order();
  FOR seen IN
    SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command(false) c CROSS JOIN LATERAL lead_audit_internal.relation_row(c.relation) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w WHERE c.trigger_id IS NOT NULL AND w.state = 'on'
  LOOP
    PERFORM lead_audit_internal.warn_of_earlier_triggers(seen.relation);
  END LOOP;
  IF 'joined' = ANY (lead_audit_internal.command_effects()) THEN
    PERFORM lead_audit_internal.after_attach();
  END IF;
  PERFORM lead_audit_internal.follow_ddl(false, lead_audit_internal.command_effects());
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.after_drop() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  watching lead_audit.watch;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    RETURN;
  END IF;
  FOR gone IN
    SELECT m.watch_id, m.relation, m.is_root, m.table_schema, m.table_name
    FROM pg_event_trigger_dropped_objects() d CROSS JOIN LATERAL lead_audit_internal.relation_row(d.objid) m
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND m.relation IS NOT NULL
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    watching := lead_audit_internal.watch_row(gone.watch_id);
    IF gone.is_root AND watching.state IN ('on', 'disabled') THEN
      PERFORM lead_audit_internal.note_state(watching, 'dropped', gone.relation);
    ELSIF gone.is_root THEN
      PERFORM lead_audit_internal.change_watch(gone.watch_id, '{"state": "dropped"}');
    ELSIF watching.state IN ('on', 'disabled') THEN
      -- A partition of a table that stays.
      PERFORM lead_audit_internal.write_ddl(gone.watch_id, gone.relation, gone.table_schema, gone.table_name, current_query());
    END IF;
    PERFORM lead_audit_internal.forget_relation(gone.relation);
  END LOOP;
  PERFORM lead_audit_internal.follow_ddl(true, '{}');
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.before_attach(above oid, partition oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of(above) a WHERE a.is_row LIMIT 1);
  own regclass;
BEGIN
  FOR own IN
    SELECT m FROM lead_audit_internal.members_of(partition) m CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a
    WHERE identity IS NOT NULL AND a.is_own AND a.watch_id <> identity AND a.trigger_name = '00_lead_audit_row'
  LOOP
    EXECUTE format('ALTER TRIGGER "00_lead_audit_row" ON %s RENAME TO "00_lead_audit_row_before"', own);
  END LOOP;
END
$$;

CREATE FUNCTION lead_audit_internal.after_attach() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(false));
  attached record;
BEGIN
  FOR attached IN
    SELECT former.watch_id AS former, present.watch_id AS identity, array_agg(f) AS relations
    FROM unnest(affected) f CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) former CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) present
    WHERE former.trigger_name = '00_lead_audit_row_before' AND present.trigger_name = '00_lead_audit_row'
    GROUP BY 1, 2
  LOOP
    PERFORM lead_audit_internal.merge_watch(attached.former, attached.identity, attached.relations);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.before_attach(oid, oid), lead_audit_internal.after_attach() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.after_attach() IS 'Internal to the DDL guard: watched tables that have become partitions of another watched table are watched as such from now on.';

CREATE VIEW lead_audit.watch_fault AS
WITH RECURSIVE known AS (
  SELECT m.watch_id, m.relation, m.is_root, m.is_complete, m.table_schema, m.table_name, c.oid IS NOT NULL AS is_there
  FROM lead_audit.watched_relation m JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state IN ('on', 'disabled')
  LEFT JOIN pg_catalog.pg_class c ON c.oid = m.relation
),
tree(watch_id, relation) AS (
  SELECT k.watch_id, k.relation FROM known k WHERE k.is_root AND k.is_there
  UNION SELECT t.watch_id, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
triggers AS MATERIALIZED (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on, bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM lead_audit.audit_trigger a GROUP BY a.relation
)
SELECT k.watch_id, k.relation, 'dropped' AS fault FROM known k WHERE NOT k.is_there
UNION ALL
SELECT k.watch_id, k.relation, 'detached' FROM known k
WHERE k.is_there AND NOT k.is_root AND NOT EXISTS (SELECT FROM tree t WHERE (t.watch_id, t.relation) = (k.watch_id, k.relation))
UNION ALL
SELECT m.watch_id, m.relation, CASE WHEN k.relation IS NULL THEN 'not watched' ELSE 'trigger off' END
FROM tree m JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
JOIN pg_catalog.pg_class c ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN triggers t ON t.relation = m.relation
LEFT JOIN known k ON (k.watch_id, k.relation) = (m.watch_id, m.relation)
WHERE NOT (coalesce(t.row_on, false) AND coalesce(t.truncate_on, c.relkind = 'f'))
  
  AND NOT EXISTS (SELECT FROM lead_audit.watched_relation o JOIN lead_audit.watch v ON v.watch_id = o.watch_id AND v.state NOT IN ('off', 'dropped', 'merged')
                  WHERE o.relation = m.relation AND o.watch_id <> m.watch_id);

REVOKE ALL ON lead_audit.watch_fault FROM PUBLIC;

COMMENT ON VIEW lead_audit.watch_fault IS 'Internal: what is not as the DDL guard should have left it. Empty, unless a command got past it.';

CREATE FUNCTION lead_audit_internal.mend_watched() RETURNS TABLE (relation text, fault text) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found record;
  known lead_audit.watched_relation;
  watching lead_audit.watch;
BEGIN
  FOR found IN SELECT f.watch_id, array_agg(f.relation) AS relations FROM lead_audit.watch_fault f GROUP BY f.watch_id LOOP
    RETURN QUERY SELECT CASE WHEN c.table_name IS NULL THEN format('%I.%I', m.table_schema, m.table_name) ELSE f.relation::regclass::text END, f.fault
      FROM lead_audit.watch_fault f LEFT JOIN LATERAL lead_audit_internal.class_of(f.relation) c ON true LEFT JOIN LATERAL lead_audit_internal.relation_row(f.relation) m ON true
      WHERE f.watch_id = found.watch_id;
    FOR known IN SELECT m.* FROM unnest(found.relations) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
                 WHERE m.watch_id = found.watch_id AND NOT EXISTS (SELECT FROM lead_audit_internal.class_of(r)) LOOP
      watching := lead_audit_internal.watch_row(found.watch_id);
      IF known.is_root THEN
        PERFORM lead_audit_internal.note_state(watching, 'dropped', known.relation);
      ELSE
        PERFORM lead_audit_internal.write_ddl(found.watch_id, known.relation, known.table_schema, known.table_name, current_query());
      END IF;
      PERFORM lead_audit_internal.forget_relation(known.relation);
    END LOOP;
    watching := lead_audit_internal.watch_row(found.watch_id);
    PERFORM lead_audit_internal.follow_watch(watching, array(SELECT m FROM lead_audit_internal.roots_of(found.watch_id) r CROSS JOIN LATERAL lead_audit_internal.members_of(r) m
                                                    UNION SELECT r FROM unnest(found.relations) r CROSS JOIN LATERAL lead_audit_internal.class_of(r)), '{found}');
    -- Triggers that a restore left off have not been on yet.
    watching := lead_audit_internal.watch_row(found.watch_id);
    IF watching.state = 'on' AND EXISTS (SELECT FROM lead_audit.watch_fault f WHERE f.watch_id = found.watch_id) THEN
      PERFORM lead_audit_internal.note_state(watching, 'disabled', r) FROM lead_audit_internal.roots_of(found.watch_id) r;
    END IF;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION lead_audit_internal.mend_watched() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit_internal.mend_watched() IS 'Internal to check_watched().';

CREATE FUNCTION lead_audit.check_watched() RETURNS TABLE (relation text, fault text) LANGUAGE c AS 'MODULE_PATHNAME', 'check_watched_wrapper';

REVOKE ALL ON FUNCTION lead_audit.check_watched() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.check_watched() IS 'Compares each watched table with the catalog, as the background worker does after DDL and every minute, and returns what is not as it should be: not watched (a partition or child table without audit triggers: it has them now), detached (it has an identity of its own now), dropped, trigger off (the table counts as disabled now). Each is an entry. Empty if nothing was found.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX', 'CREATE SCHEMA', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER SEQUENCE',
               'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA', 'CREATE VIEW', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW')
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_ddl IS 'Notices audit triggers that are switched off or replaced, watched tables that are renamed or reshaped, and partitions that come and go.';

CREATE EVENT TRIGGER lead_audit_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_start IS 'Makes way where a watched table becomes a partition of another.';

CREATE EVENT TRIGGER lead_audit_drop ON sql_drop EXECUTE FUNCTION lead_audit_internal.guard_ddl();

ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER lead_audit_drop IS 'Notices audit triggers and watched tables that are dropped.';

CREATE FUNCTION lead_audit_internal.quarantined() RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'quarantined_wrapper';

COMMENT ON FUNCTION lead_audit_internal.quarantined() IS 'Internal to lead_audit.stats: how many records of this database a worker died of.';

CREATE OR REPLACE FUNCTION lead_audit_internal.key_columns(relation regclass) RETURNS smallint[] LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN p.attnums <> '{}' THEN p.attnums ELSE coalesce(
    (SELECT CASE WHEN count(*) = max(cardinality(f.column_names)) THEN array_agg(a.attnum ORDER BY a.attnum) END
     FROM (SELECT k.column_names FROM lead_audit.former_key k
           WHERE k.watch_id = lead_audit_internal.watch_of($1) AND k.column_names <> '{}' ORDER BY k.until_entry DESC LIMIT 1) f
     JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum > 0 AND a.attname = ANY (f.column_names)), '{}') END
  FROM lead_audit_internal.primary_key_of($1) p
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.key_of(relation regclass, key text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.key_of($1, lead_audit_internal.key_columns($1), NULL, ARRAY[$2])
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.key_of(relation regclass, key jsonb) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT lead_audit_internal.key_of($1, lead_audit_internal.key_columns($1), array_agg(k.key), array_agg(k.value)) FROM jsonb_each_text($2) k),
                  lead_audit.canonical_json($2))
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.identities_of(relation regclass) RETURNS TABLE (watch_id uuid, until_entry bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE known(watch_id, until_entry) AS (
    SELECT w, 9223372036854775807 FROM lead_audit_internal.watch_of($1) w WHERE w IS NOT NULL
    UNION
    SELECT e.earlier_id, e.until_entry FROM known k JOIN lead_audit.earlier_identity e ON e.watch_id = k.watch_id AND e.until_entry <= k.until_entry
  )
  SELECT k.watch_id, max(k.until_entry) FROM known k GROUP BY k.watch_id
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.former_spellings(relation regclass, row_key text, identity uuid, until bigint)
RETURNS TABLE (spelling jsonb, is_key boolean, after_entry bigint, until_entry bigint) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := row_key::jsonb;
  present record;
  later_names text[];
  former record;
BEGIN
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS names,
         coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}') AS types INTO present
  FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = ANY (lead_audit_internal.key_columns(relation));
  IF NOT (key ?& present.names AND present.names @> array(SELECT jsonb_object_keys(key))) THEN
    RETURN; -- a key of other columns than the present one's: only itself
  END IF;
  IF (SELECT p.attnums = '{}' FROM lead_audit_internal.primary_key_of(relation) p) THEN
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
                                  ELSE lead_audit_internal.value_as(relation, u.former_type, key ->> u.name)::jsonb END AS value
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

CREATE OR REPLACE FUNCTION lead_audit_internal.entries_of(relation regclass, row_key text) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    SELECT i.watch_id, row_key AS spelling, true AS is_key, 0::bigint AS after_entry, i.until_entry FROM lead_audit_internal.identities_of(relation) i
    UNION ALL
    SELECT i.watch_id, lead_audit.canonical_json(f.spelling), f.is_key, f.after_entry, f.until_entry FROM lead_audit_internal.identities_of(relation) i
    CROSS JOIN LATERAL lead_audit_internal.former_spellings(relation, row_key, i.watch_id, i.until_entry) f
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
          AND (lead_audit_internal.has_values(e.row_values::jsonb, wanted.spelling::jsonb)
               OR lead_audit_internal.has_values(e.row_values::jsonb || e.changed_values::jsonb, wanted.spelling::jsonb));
    END IF;
  END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.has_values(row_values jsonb, wanted jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bool_and($1 -> k.key = k.value) FROM jsonb_each($2) k
$$;

CREATE OR REPLACE FUNCTION lead_audit.history(relation regclass, key text) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2))) ORDER BY l.id
$$;

CREATE OR REPLACE FUNCTION lead_audit.history(relation regclass, key jsonb) RETURNS SETOF lead_audit.log
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.* FROM lead_audit.log l WHERE l.id IN (SELECT lead_audit_internal.entries_of($1, lead_audit_internal.key_of($1, $2))) ORDER BY l.id
$$;

CREATE OR REPLACE FUNCTION lead_audit_internal.summary_of(relation regclass, row_key text, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*), count(*) FILTER (WHERE e.operation = 'INSERT' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'UPDATE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.operation = 'DELETE' AND e.outcome = 'ok'),
         count(*) FILTER (WHERE e.outcome = 'failed'),
         min(e.occurred_at), max(e.occurred_at), count(DISTINCT e.user_id), bool_and(lead_audit.verify_entry(e.id))
  FROM lead_audit.entry e WHERE e.id IN (SELECT lead_audit_internal.entries_of($1, $2))
$$;

CREATE OR REPLACE FUNCTION lead_audit.summary(relation regclass, key text, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;

CREATE OR REPLACE FUNCTION lead_audit.summary(relation regclass, key jsonb, OUT total bigint, OUT created bigint, OUT updated bigint, OUT deleted bigint,
  OUT failed bigint, OUT first_event timestamptz, OUT last_event timestamptz, OUT distinct_users bigint, OUT verified boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM lead_audit_internal.summary_of($1, lead_audit_internal.key_of($1, $2))
$$;

CREATE OR REPLACE VIEW lead_audit.stats AS
SELECT (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.unwritten_seq s)
         + (SELECT coalesce(sum(u.entries), 0)::bigint FROM lead_audit.unwritten u) AS entries_not_written,
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
       t.publishing_errors, t.last_publishing_error_at, t.last_publishing_error,
       lead_audit_internal.quarantined() AS quarantined
FROM lead_audit_internal.own_queue() q
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

COMMENT ON COLUMN lead_audit.stats.entries_not_written IS 'Entries that committed transactions lack, because they could not be written while lead_audit.on_error was warn.';

COMMENT ON COLUMN lead_audit.stats.quarantined IS 'Of the dropped ones, how many a worker died of. They are not tried again.';

-- The digest of a table's columns now covers the attributes of composite types. Without this, the next command on each
-- table would be recorded as a change.
SELECT lead_audit_internal.note_relations(w.watch_id, NULL) FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');
