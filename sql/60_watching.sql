-- enable(), disable() and what they rest on.

-- The two audit triggers: their names, and what each is there for. The row trigger has another name while its table becomes a partition.
-- A view, since other views read it for roles without rights here.
CREATE VIEW lead_audit.trigger_kind (name, type, is_row) AS
-- AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, and BEFORE TRUNCATE (TRIGGER_TYPE_... in catalog/pg_trigger.h).
VALUES ('00_lead_audit_row'::name, 29::smallint, true), ('00_lead_audit_truncate'::name, 34::smallint, false),
  ('00_lead_audit_row_before'::name, 29::smallint, true);
REVOKE ALL ON lead_audit.trigger_kind FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_kind IS 'Internal: the audit triggers that a watched table has.';

CREATE FUNCTION lead_audit_internal.is_audit_trigger_name(name name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.is_audit_trigger_name(name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.is_audit_trigger_name(name) IS 'Internal: whether audit triggers have this name.';

-- The audit triggers there really are, with the identity that they carry. The link is the trigger itself.
CREATE VIEW lead_audit.audit_trigger AS
SELECT k.watch_id, t.tgrelid AS relation, t.tgname AS trigger_name, k.is_row, t.tgparentid = 0 AS is_own,
       -- On, and for every event that it is there for. O is an ordinary trigger, A one that fires in a replica too.
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
REVOKE ALL ON lead_audit.audit_trigger FROM PUBLIC;
COMMENT ON VIEW lead_audit.audit_trigger IS 'Internal: the triggers that call lead_audit, and whether each is on.';

-- Of each watched table: its root, and whether rows and TRUNCATE are recorded in all of its relations. Which these are, the
-- inheritance says: a member without triggers counts.
CREATE VIEW lead_audit.trigger_state AS
WITH RECURSIVE a AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
tree(watch_id, relation) AS (
  SELECT a.watch_id, a.relation FROM a
  UNION SELECT t.watch_id, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
below AS (
  SELECT DISTINCT c.watch_id, c.relation
  FROM a c JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.relation JOIN a p ON p.relation = i.inhparent AND p.watch_id = c.watch_id
),
-- A child table can be watched on its own: it has an identity of its own then.
triggers AS (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on, bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM a GROUP BY a.relation
)
SELECT m.watch_id,
       min(m.relation::bigint) FILTER (WHERE b.relation IS NULL AND EXISTS (SELECT FROM a WHERE a.watch_id = m.watch_id AND a.relation = m.relation))::oid AS root,
       bool_and(coalesce(t.row_on, false)) AS row_on,
       -- A foreign table has no TRUNCATE triggers.
       bool_and(coalesce(t.truncate_on, c.relkind = 'f')) AS truncate_on
FROM tree m
JOIN pg_catalog.pg_class c ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN below b ON b.watch_id = m.watch_id AND b.relation = m.relation
LEFT JOIN triggers t ON t.relation = m.relation
GROUP BY m.watch_id;
REVOKE ALL ON lead_audit.trigger_state FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_state IS 'Internal: whether the triggers of each watched table, its partitions and child tables included, are all on.';

-- The DDL guard, enable() and disable() use what follows instead of these views: it goes by what is committed, not by what a
-- transaction saw when it began; it looks up only what it is asked for; and it leaves no predicate locks.
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

CREATE FUNCTION lead_audit_internal.is_complete(relation oid, identity uuid) RETURNS boolean LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         -- A foreign table has no TRUNCATE triggers.
         AND (coalesce(bool_or(NOT a.is_row AND a.is_on), false) OR EXISTS (SELECT FROM lead_audit_internal.class_of($1) c WHERE c.kind = 'f'))
  FROM lead_audit_internal.audit_triggers_of($1) a WHERE a.watch_id = $2
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.is_complete(oid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.is_complete(oid, uuid) IS 'Internal: whether the relation has the audit triggers of this identity, and all are on.';

-- A watched table is watched with everything that a statement on it can reach: its partitions, its child tables.
CREATE FUNCTION lead_audit_internal.members_of(root oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'members_of_wrapper';
CREATE FUNCTION lead_audit_internal.ancestors_of(member oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'ancestors_of_wrapper';
CREATE FUNCTION lead_audit_internal.parents_of(member oid) RETURNS SETOF oid STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'parents_of_wrapper';
CREATE FUNCTION lead_audit_internal.lock_members(root oid) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'lock_members_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.members_of(oid), lead_audit_internal.ancestors_of(oid), lead_audit_internal.parents_of(oid), lead_audit_internal.lock_members(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.members_of(oid) IS 'Internal: a table, its partitions and its child tables, at any depth. Temporary tables are not among them.';
COMMENT ON FUNCTION lead_audit_internal.ancestors_of(oid) IS 'Internal: the tables that a table is a partition or a child of, at any depth.';
COMMENT ON FUNCTION lead_audit_internal.parents_of(oid) IS 'Internal: the tables that a table is directly a partition or a child of.';
COMMENT ON FUNCTION lead_audit_internal.lock_members(oid) IS 'Internal: locks a table, its partitions and its child tables as CREATE TRIGGER does. Nobody adds another one until the transaction ends.';

CREATE FUNCTION lead_audit_internal.root_of(relation oid, identity uuid) RETURNS oid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT min(t.r::bigint)::oid FROM (SELECT $1 UNION ALL SELECT lead_audit_internal.ancestors_of($1)) t(r)
  WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(t.r) a WHERE a.watch_id = $2)
    AND NOT EXISTS (SELECT FROM lead_audit_internal.parents_of(t.r) p CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(p) a WHERE a.watch_id = $2)
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.root_of(oid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.root_of(oid, uuid) IS 'Internal: the uppermost table with triggers of this identity, the relation or one above it.';

CREATE FUNCTION lead_audit_internal.shape_of(relation oid) RETURNS bytea LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(convert_to(lead_audit_internal.columns_of($1), 'UTF8'))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.shape_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.shape_of(oid) IS 'Internal: a digest of the table''s columns, and of the attributes of composite types in them.';

CREATE FUNCTION lead_audit_internal.primary_key_of(relation oid) RETURNS TABLE (attnums smallint[], names text[], types text[])
STRICT ROWS 1 LANGUAGE c AS 'MODULE_PATHNAME', 'primary_key_of_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.primary_key_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.primary_key_of(oid) IS 'Internal: the columns of the table''s primary key, by their numbers.';

CREATE VIEW lead_audit.watched AS
SELECT coalesce(t.root::pg_catalog.regclass::text, pg_catalog.format('%I.%I', w.table_schema, w.table_name)) AS relation,
       coalesce(t.row_on, false) AS row_trigger_on,
       coalesce(t.truncate_on, false) AS truncate_trigger_on,
       coalesce(w.state, 'unregistered') AS state,
       w.soft_delete_column, w.enabled_at, w.baseline_at, coalesce(w.watch_id, t.watch_id) AS watch_id, w.replica
FROM (SELECT * FROM lead_audit.watch WHERE state IN ('on', 'disabled')) w
FULL JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id;
REVOKE ALL ON lead_audit.watched FROM PUBLIC;
COMMENT ON VIEW lead_audit.watched IS 'The tables that are watched, and whether their triggers really are there and on.';
COMMENT ON COLUMN lead_audit.watched.relation IS 'The table, quoted and with its schema where needed.';
COMMENT ON COLUMN lead_audit.watched.row_trigger_on IS 'Whether every INSERT, UPDATE and DELETE is recorded, in all partitions and child tables.';
COMMENT ON COLUMN lead_audit.watched.truncate_trigger_on IS 'Whether TRUNCATE is recorded, of partitions too.';
COMMENT ON COLUMN lead_audit.watched.state IS 'on, disabled (by hand), or unregistered (triggers without a row in lead_audit.watch, as after restoring the table alone; entries are written all the same).';
COMMENT ON COLUMN lead_audit.watched.soft_delete_column IS 'The column whose turning true marks a soft delete.';
COMMENT ON COLUMN lead_audit.watched.enabled_at IS 'When watching began.';
COMMENT ON COLUMN lead_audit.watched.baseline_at IS 'When a baseline was written, or NULL.';
COMMENT ON COLUMN lead_audit.watched.watch_id IS 'The table''s identity, in each of its entries.';
COMMENT ON COLUMN lead_audit.watched.replica IS 'Whether rows that logical replication brings are recorded too.';

CREATE FUNCTION lead_audit_internal.watch_of(relation regclass) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of($1) a ORDER BY a.trigger_name COLLATE "C" LIMIT 1),
    (SELECT m.watch_id FROM lead_audit_internal.relation_row($1) m),
    (SELECT w.watch_id FROM lead_audit_internal.class_of($1) c CROSS JOIN LATERAL lead_audit_internal.identities_named(c.table_schema, c.table_name) i
       CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
     WHERE w.state NOT IN ('dropped', 'merged') ORDER BY w.enabled_at DESC LIMIT 1))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.watch_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_of(regclass) IS 'Internal: the identity of a table that is or was watched; NULL if it never was.';

CREATE FUNCTION lead_audit_internal.watched_above(member oid) RETURNS oid LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT r FROM lead_audit_internal.audit_triggers_of($1) a CROSS JOIN LATERAL lead_audit_internal.root_of($1, a.watch_id) r WHERE r <> $1 LIMIT 1
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.watched_above(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watched_above(oid) IS 'Internal: the watched table as a part of which a partition or child table is watched; NULL if it is none.';

CREATE FUNCTION lead_audit_internal.make_triggers(relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.make_triggers(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_triggers(regclass, uuid, text) IS 'Internal to enable() and the DDL guard: makes the audit triggers of a table, its partitions and child tables, or mends them.';

-- CREATE OR REPLACE TRIGGER replaces no constraint trigger.
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

-- Postgres gives the row trigger of a partitioned table to all partitions by itself, a statement trigger it does not.
CREATE FUNCTION lead_audit_internal.make_member_triggers(member oid, watch_id uuid, soft_delete_column text, is_root boolean) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.make_member_triggers(oid, uuid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_member_triggers(oid, uuid, text, boolean) IS 'Internal: makes the audit triggers of one relation of a watched table.';

CREATE FUNCTION lead_audit_internal.make_trigger(relation regclass, name text, events text, level text, function text, arguments text[], identity uuid)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION lead_audit.%I(%s)', name, events, relation, level, function,
                 (SELECT string_agg(quote_literal(a), ', ' ORDER BY n) FROM unnest(arguments) WITH ORDINALITY u(a, n)));
  EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', relation,
                 CASE WHEN (lead_audit_internal.watch_row(identity)).replica THEN 'ALWAYS' END, name);
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.make_trigger(regclass, text, text, text, text, text[], uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_trigger(regclass, text, text, text, text, text[], uuid) IS 'Internal: one audit trigger of a relation.';

CREATE FUNCTION lead_audit_internal.make_truncate_trigger(relation regclass, watch_id uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.make_trigger($1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate', ARRAY[$2::text], $2)
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.make_truncate_trigger(regclass, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.make_truncate_trigger(regclass, uuid) IS 'Internal: the TRUNCATE trigger of a watched table or of one of its partitions.';

CREATE FUNCTION lead_audit_internal.drop_triggers(identity uuid, relations oid[]) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.drop_triggers(uuid, oid[]) IS 'Internal: drops the audit triggers of an identity that some relations have.';

CREATE FUNCTION lead_audit_internal.note_relations(identity uuid, touched oid[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.note_relations(uuid, oid[]) IS 'Internal: takes note of those of the relations that belong to a watched table; with NULL, of all that have its triggers.';

CREATE FUNCTION lead_audit_internal.last_entry() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM lead_audit.entry_id_seq s);
EXCEPTION WHEN undefined_table THEN
  -- Somebody has put it away; no entry is written then.
  RETURN 0;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.last_entry() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.last_entry() IS 'Internal: the highest id given out.';

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

CREATE FUNCTION lead_audit_internal.warn_of_earlier_triggers(relation regclass) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit_internal.warn_of_earlier_triggers(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.warn_of_earlier_triggers(regclass) IS 'Internal: warns of AFTER ROW triggers whose name puts them before the audit trigger.';

CREATE FUNCTION lead_audit_internal.soft_delete_column_of(relation regclass, wanted name) RETURNS text
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
REVOKE ALL ON FUNCTION lead_audit_internal.soft_delete_column_of(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.soft_delete_column_of(regclass, name) IS 'Internal to enable(): the soft-delete column to use. Errors 42703, 42804.';

-- These two are SQL, which an older library would run without knowing what it is about.
CREATE FUNCTION lead_audit_internal.require_library() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'require_library_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.require_library() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.require_library() IS 'Internal to enable() and disable(): error 55000 where the library is older than these SQL objects.';

CREATE FUNCTION lead_audit_internal.watch_table(relation regclass, soft_delete_column name, baseline boolean, replica boolean)
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
REVOKE ALL ON FUNCTION lead_audit_internal.watch_table(regclass, name, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_table(regclass, name, boolean, boolean) IS 'Internal to enable().';

CREATE FUNCTION lead_audit.enable(relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $2, $3, NULL)
$$;
CREATE FUNCTION lead_audit.enable(relation regclass, replica boolean, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit_internal.watch_table($1, $3, $4, $2)
$$;
REVOKE ALL ON FUNCTION lead_audit.enable(regclass, name, boolean), lead_audit.enable(regclass, boolean, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.enable(regclass, name, boolean) IS 'Watches a table from now on, with its partitions and child tables; returns its identity. A second call changes nothing but what it is given. soft_delete_column: by default is_deleted, if there is such a boolean column. baseline: first write one SNAPSHOT entry for each row already there. Errors: 42P01 no such relation, 42809 not a permanent table, or one that is watched as a part of another, 42703 or 42804 no such boolean column.';
COMMENT ON FUNCTION lead_audit.enable(regclass, boolean, name, boolean) IS 'The same. replica: whether rows are recorded, too, that logical replication or session_replication_role = replica brings; false until it is said.';

CREATE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
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
REVOKE ALL ON FUNCTION lead_audit.disable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.disable(regclass) IS 'Stops watching a table; the trail so far stays, and the end of watching is an entry (DDL). True if it was watched. Who may execute this may also switch the triggers off by ALTER TABLE. Errors: 42P01 no such relation, 42809 one that is watched as a part of another.';
