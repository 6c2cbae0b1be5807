-- The functions enable() and disable(), and the functions that these two call.

-- Lists the audit triggers, each with its name, its tgtype (catalog/pg_trigger.h) and its level.
-- The tgtype 29 means AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, and 34 means BEFORE TRUNCATE.
-- While a watched table becomes a partition, its row trigger has the name
-- 00_lead_audit_row_before. Other views read trigger_kind with the rights of their owner. If
-- trigger_kind were a function, each role that reads those views would need the right to execute
-- it.
CREATE VIEW lead_audit.trigger_kind (name, type, is_row) AS
VALUES ('00_lead_audit_row'::name, 29::smallint, true),
       ('00_lead_audit_truncate'::name, 34::smallint, false),
       ('00_lead_audit_row_before'::name, 29::smallint, true);
REVOKE ALL ON lead_audit.trigger_kind FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_kind IS
  'Internal: the audit triggers that each watched table has.';
COMMENT ON COLUMN lead_audit.trigger_kind.name IS 'Name of the trigger.';
COMMENT ON COLUMN lead_audit.trigger_kind.type IS 'Events and level, as in pg_trigger.tgtype.';
COMMENT ON COLUMN lead_audit.trigger_kind.is_row IS
  'Whether it is the row trigger, not the TRUNCATE trigger.';

CREATE FUNCTION lead_audit_internal.is_audit_trigger_name(name name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.is_audit_trigger_name(name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.is_audit_trigger_name(name) IS
  'Whether audit triggers have this name.';

-- The audit triggers in pg_trigger, with the watch id from the arguments of each trigger. An audit
-- trigger with a condition or a column list does not fire for every event, so its column is_on is
-- false. tgenabled is O for a trigger that does not fire with session_replication_role = replica,
-- and A for a trigger that always fires. tgenabled should be A for all audit triggers. If a table
-- is watched without the option replica, the last argument of its audit triggers is origin_only.
-- With origin_only, the trigger function does not record trusted writes in the replica role
-- (src/capture/replica_role.rs). The bytea constant in the view is the text origin_only between
-- two zero bytes.
CREATE VIEW lead_audit.audit_trigger AS
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
REVOKE ALL ON lead_audit.audit_trigger FROM PUBLIC;
COMMENT ON VIEW lead_audit.audit_trigger IS
  'Internal: the triggers that call lead_audit, and whether each is on.';
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

-- Shows the root of each watched table, and whether row changes and TRUNCATEs are recorded in the
-- table, its partitions and its child tables. The view finds partitions and child tables by
-- inheritance, so it also finds relations without audit triggers. A child table that is watched on
-- its own has its own watch id. For the state of its parent, the view accepts the audit triggers
-- of this child table too. A foreign table does not need the TRUNCATE trigger.
CREATE VIEW lead_audit.trigger_state AS
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
REVOKE ALL ON lead_audit.trigger_state FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_state IS
  'Internal: whether all audit triggers of each watched table are on, those of its partitions and '
  'child tables included.';
COMMENT ON COLUMN lead_audit.trigger_state.watch_id IS 'Watched table.';
COMMENT ON COLUMN lead_audit.trigger_state.root IS
  'Oid of the watched table itself, above its partitions and child tables.';
COMMENT ON COLUMN lead_audit.trigger_state.row_on IS 'Whether all row triggers are on.';
COMMENT ON COLUMN lead_audit.trigger_state.truncate_on IS 'Whether all TRUNCATE triggers are on.';

-- The DDL guard, enable() and disable() use the following functions instead of the views of this
-- file. The functions see all committed changes, even those that were committed after the
-- transaction took its snapshot. The functions read only the requested rows, and take no predicate
-- locks.
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

-- PostgreSQL 15 has no TRUNCATE triggers on foreign tables. After an upgrade from PostgreSQL 15, a
-- foreign table lacks its TRUNCATE trigger until somebody calls enable() again.
CREATE FUNCTION lead_audit_internal.has_truncate_triggers(kind text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT $1 <> 'f' OR current_setting('server_version_num')::integer >= 160000
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.has_truncate_triggers(text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.has_truncate_triggers(text) IS
  'Whether a relation of this kind (pg_class.relkind) can have TRUNCATE triggers.';

CREATE FUNCTION lead_audit_internal.is_complete(relation oid, identity uuid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         AND coalesce(bool_or(a.is_on) FILTER (WHERE NOT a.is_row),
                      (SELECT c.kind = 'f' FROM lead_audit_internal.class_of($1) c), false)
  FROM lead_audit_internal.audit_triggers_of($1) a WHERE a.watch_id = $2
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.is_complete(oid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.is_complete(oid, uuid) IS
  'Whether the relation has all audit triggers with this watch id, and all are on.';

-- Returns the relations that a statement on the table can reach: the table, its partitions and its
-- child tables. If the table is watched, all these relations are watched.
CREATE FUNCTION lead_audit_internal.members_of(root oid) RETURNS SETOF oid
  STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'members_of_wrapper';
CREATE FUNCTION lead_audit_internal.ancestors_of(member oid) RETURNS SETOF oid
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

CREATE FUNCTION lead_audit_internal.shape_of(relation oid) RETURNS bytea
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(convert_to(lead_audit_internal.columns_of($1), 'UTF8'))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.shape_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.shape_of(oid) IS
  'Returns a digest of the table''s columns, and of the attributes of composite types in them.';

CREATE FUNCTION lead_audit_internal.primary_key_of(relation oid)
  RETURNS TABLE (attnums smallint[], names text[], types text[])
  STRICT ROWS 1 LANGUAGE c AS 'MODULE_PATHNAME', 'primary_key_of_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.primary_key_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.primary_key_of(oid) IS
  'Returns the columns of the table''s primary key, in the order of their numbers.';

CREATE VIEW lead_audit.watched AS
SELECT coalesce(t.root::pg_catalog.regclass::text,
                pg_catalog.format('%I.%I', w.table_schema, w.table_name)) AS relation,
       coalesce(t.row_on, false) AS row_trigger_on,
       coalesce(t.truncate_on, false) AS truncate_trigger_on,
       coalesce(w.state, 'unregistered') AS state,
       w.soft_delete_column, w.enabled_at, w.baseline_at,
       coalesce(w.watch_id, t.watch_id) AS watch_id, w.replica
FROM (SELECT * FROM lead_audit.watch WHERE state IN ('on', 'disabled')) w
FULL JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id;
REVOKE ALL ON lead_audit.watched FROM PUBLIC;
COMMENT ON VIEW lead_audit.watched IS
  'The watched tables, and whether their audit triggers exist and are enabled.';
COMMENT ON COLUMN lead_audit.watched.relation IS
  'Name of the table, quoted and with its schema if necessary.';
COMMENT ON COLUMN lead_audit.watched.row_trigger_on IS
  'Whether every INSERT, UPDATE and DELETE is recorded, in all partitions and child tables.';
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

CREATE FUNCTION lead_audit_internal.watch_of(relation regclass) RETURNS uuid
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
REVOKE ALL ON FUNCTION lead_audit_internal.watch_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_of(regclass) IS
  'Returns the watch id of a table that is or was watched, or NULL.';

CREATE FUNCTION lead_audit_internal.watched_above(member oid) RETURNS oid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT r FROM lead_audit_internal.audit_triggers_of($1) a
  CROSS JOIN LATERAL lead_audit_internal.root_of($1, a.watch_id) r WHERE r <> $1 LIMIT 1
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.watched_above(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watched_above(oid) IS
  'Returns the watched table of which a relation is a partition or child table, or NULL.';

-- The function leaves out a child table that is watched on its own. This child table keeps its
-- audit triggers, which have the child table's own watch id.
CREATE FUNCTION lead_audit_internal.make_triggers(
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
REVOKE ALL ON FUNCTION lead_audit_internal.make_triggers(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_triggers(regclass, uuid, text) IS
  'Creates or repairs the audit triggers of a table, its partitions and child tables.';

-- CREATE OR REPLACE TRIGGER cannot replace a constraint trigger. So this function renames a
-- constraint trigger that has the name of an audit trigger.
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

-- PostgreSQL copies the row trigger of a partitioned table to all partitions, but does not copy
-- the TRUNCATE trigger. So a partition gets only a TRUNCATE trigger from this function.
CREATE FUNCTION lead_audit_internal.make_member_triggers(
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
REVOKE ALL ON FUNCTION lead_audit_internal.make_member_triggers(oid, uuid, text, boolean)
  FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_member_triggers(oid, uuid, text, boolean) IS
  'Creates the audit triggers of one relation of a watched table.';

-- All audit triggers are ENABLE ALWAYS. Ordinary triggers would not fire for the writes of a
-- logical replication subscription. Any role with the rights of pg_create_subscription can create
-- a subscription, and so could write without entries.
CREATE FUNCTION lead_audit_internal.make_trigger(
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
REVOKE ALL ON FUNCTION
  lead_audit_internal.make_trigger(regclass, text, text, text, text, text[], uuid) FROM PUBLIC;
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

CREATE FUNCTION lead_audit_internal.make_truncate_trigger(relation regclass, watch_id uuid)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.make_trigger(
    $1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate',
    ARRAY[$2::text], $2)
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.make_truncate_trigger(regclass, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_truncate_trigger(regclass, uuid) IS
  'Creates the TRUNCATE trigger of one relation of a watched table.';

-- Sets the audit triggers of a table to ENABLE ALWAYS if they are set to plain ENABLE. Plain
-- ENABLE comes from ALTER TABLE ... ENABLE TRIGGER, which a dump with --disable-triggers contains.
-- The audit triggers in a dump of version 1.0 are also set to plain ENABLE. A restore can create
-- the triggers before it loads the table's row of lead_audit.watch. While this row is missing, the
-- function does not change the triggers.
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

CREATE FUNCTION lead_audit_internal.drop_triggers(identity uuid, relations oid[]) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) IS
  'Drops the audit triggers with this watch id from relations.';

CREATE FUNCTION lead_audit_internal.note_relations(identity uuid, touched oid[]) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) IS
  'Brings lead_audit.watched_relation up to date for those relations that belong to a watched '
  'table. With NULL, for all relations with its triggers.';

CREATE FUNCTION lead_audit_internal.last_entry() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END
          FROM lead_audit.entry_id_seq s);
EXCEPTION WHEN undefined_table THEN
  -- Somebody has moved the sequence away. No entry can be written then.
  RETURN 0;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.last_entry() FROM PUBLIC;
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

-- `kind & 67 = 1` is true for a trigger AFTER ... FOR EACH ROW, where `kind` is pg_trigger.tgtype.
CREATE FUNCTION lead_audit_internal.warn_of_earlier_triggers(relation regclass) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.warn_of_earlier_triggers(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.warn_of_earlier_triggers(regclass) IS
  'Warns of AFTER ROW triggers whose names sort before the audit trigger.';

CREATE FUNCTION lead_audit_internal.soft_delete_column_of(relation regclass, wanted name)
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
REVOKE ALL ON FUNCTION lead_audit_internal.soft_delete_column_of(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.soft_delete_column_of(regclass, name) IS
  'Returns the soft-delete column that enable() uses, or NULL. Errors 42703, 42804.';

-- enable() and disable() share the following checks. enable() and disable() are written in SQL and
-- PL/pgSQL, so PostgreSQL also runs them with an older library. An older library lacks functions
-- that the SQL code calls. So enable() and disable() first check the version of the library.
CREATE FUNCTION lead_audit_internal.require_library() RETURNS void
  LANGUAGE c AS 'MODULE_PATHNAME', 'require_library_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.require_library() FROM PUBLIC;
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

-- The following functions are the steps of enable(), in the order of their execution. The argument
-- "watching" is the table's row of lead_audit.watch before the call of enable(). The argument
-- "wanted" is the table's row after the call.
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

-- The first call of enable() for a table writes no entry. A later call writes an entry if watching
-- continues after an interruption, or if the call changes an option.
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

CREATE FUNCTION lead_audit_internal.watch_table(
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
REVOKE ALL ON FUNCTION lead_audit_internal.watch_table(regclass, name, boolean, boolean)
  FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_table(regclass, name, boolean, boolean) IS
  'Does the work of enable().';

CREATE FUNCTION lead_audit.enable(
  relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $2, $3, NULL)
$$;
CREATE FUNCTION lead_audit.enable(
  relation regclass, replica boolean, soft_delete_column name DEFAULT NULL,
  baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $3, $4, $2)
$$;
REVOKE ALL ON FUNCTION lead_audit.enable(regclass, name, boolean),
  lead_audit.enable(regclass, boolean, name, boolean) FROM PUBLIC;
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

CREATE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
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
REVOKE ALL ON FUNCTION lead_audit.disable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.disable(regclass) IS
  'Stops watching a table. Its entries stay, and the end of watching is an entry itself (DDL). '
  'Returns whether the table was watched. A role that may execute this function may also disable '
  'the audit triggers of its own tables by ALTER TABLE. Errors: 42P01 if the relation does not '
  'exist, 42809 if it is watched as a part of another.';
