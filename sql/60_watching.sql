-- enable(), disable() and what they rest on.

-- The two audit triggers: their names, and what each is there for. A view, since other views read it for roles without rights here.
CREATE VIEW lead_audit.trigger_kind (name, type, is_row) AS
-- AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, and BEFORE TRUNCATE (TRIGGER_TYPE_... in catalog/pg_trigger.h).
VALUES ('00_lead_audit_row'::name, 29::smallint, true), ('00_lead_audit_truncate'::name, 34::smallint, false);
REVOKE ALL ON lead_audit.trigger_kind FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_kind IS 'Internal: the audit triggers that a watched table has.';

CREATE FUNCTION lead_audit.is_audit_trigger_name(name name) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.trigger_kind k WHERE k.name = $1)
$$;
REVOKE ALL ON FUNCTION lead_audit.is_audit_trigger_name(name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.is_audit_trigger_name(name) IS 'Internal: whether audit triggers have this name.';

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

-- Of each watched table: its root, and whether rows and TRUNCATE are recorded in all of its relations.
CREATE VIEW lead_audit.trigger_state AS
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
REVOKE ALL ON lead_audit.trigger_state FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_state IS 'Internal: whether the triggers of each watched table, its partitions and child tables included, are all on.';

CREATE FUNCTION lead_audit.is_complete(relation oid, identity uuid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(a.is_row AND a.is_on), false)
         -- A foreign table has no TRUNCATE triggers.
         AND (coalesce(bool_or(NOT a.is_row AND a.is_on), false) OR EXISTS (SELECT FROM pg_class c WHERE c.oid = $1 AND c.relkind = 'f'))
  FROM lead_audit.audit_trigger a WHERE a.relation = $1 AND a.watch_id = $2
$$;
REVOKE ALL ON FUNCTION lead_audit.is_complete(oid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.is_complete(oid, uuid) IS 'Internal: whether the relation has the audit triggers of this identity, and all are on.';

-- A watched table is watched with everything that a statement on it can reach: its partitions, its child tables.
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

CREATE FUNCTION lead_audit.watch_of(relation regclass) RETURNS uuid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = $1::oid ORDER BY a.trigger_name LIMIT 1),
    (SELECT m.watch_id FROM lead_audit.watched_relation m WHERE m.relation = $1::oid),
    (SELECT w.watch_id FROM lead_audit.watch w JOIN pg_class c ON c.relname = w.table_name
       JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = w.table_schema
     WHERE c.oid = $1::oid AND w.state NOT IN ('dropped', 'merged') ORDER BY w.enabled_at DESC LIMIT 1))
$$;
REVOKE ALL ON FUNCTION lead_audit.watch_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.watch_of(regclass) IS 'Internal: the identity of a table that is or was watched; NULL if it never was.';

CREATE FUNCTION lead_audit.watched_above(member oid) RETURNS oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.root FROM lead_audit.audit_trigger a JOIN lead_audit.trigger_state t ON t.watch_id = a.watch_id
  WHERE a.relation = $1 AND t.root IN (SELECT lead_audit.ancestors_of($1)) LIMIT 1
$$;
REVOKE ALL ON FUNCTION lead_audit.watched_above(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.watched_above(oid) IS 'Internal: the watched table as a part of which a partition or child table is watched; NULL if it is none.';

CREATE FUNCTION lead_audit.make_triggers(relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
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
REVOKE ALL ON FUNCTION lead_audit.make_triggers(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.make_triggers(regclass, uuid, text) IS 'Internal to enable() and the DDL guard: makes the audit triggers of a table, its partitions and child tables, or mends them.';

-- Postgres gives the row trigger of a partitioned table to all partitions by itself, a statement trigger it does not.
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

CREATE FUNCTION lead_audit.make_truncate_trigger(relation regclass, watch_id uuid) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.make_trigger($1, '00_lead_audit_truncate', 'BEFORE TRUNCATE', 'STATEMENT', 'capture_truncate', ARRAY[$2::text], $2)
$$;
REVOKE ALL ON FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) IS 'Internal: the TRUNCATE trigger of a watched table or of one of its partitions.';

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

CREATE FUNCTION lead_audit.note_relations(identity uuid, touched oid[]) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION lead_audit.note_relations(uuid, oid[]) FROM PUBLIC;
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

CREATE FUNCTION lead_audit.warn_of_earlier_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  earlier text;
BEGIN
  SELECT string_agg(quote_ident(t.tgname), ', ') INTO earlier FROM pg_trigger t
  WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgtype & 67 = 1 AND t.tgname COLLATE "C" < '00_lead_audit_row';
  IF earlier IS NOT NULL THEN
    RAISE WARNING 'triggers of % run before the audit trigger: %', relation, earlier
      USING DETAIL = 'AFTER ROW triggers run in the order of their names. If one of these writes the same row again, that entry gets the lower id.',
            HINT = 'Give them names that sort after 00_lead_audit_row.';
  END IF;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.warn_of_earlier_triggers(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.warn_of_earlier_triggers(regclass) IS 'Internal: warns of AFTER ROW triggers whose name puts them before the audit trigger.';

CREATE FUNCTION lead_audit.soft_delete_column_of(relation regclass, wanted name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found_type regtype;
BEGIN
  SELECT getbasetype INTO found_type
  FROM (SELECT coalesce(nullif(t.typbasetype, 0), t.oid)::regtype AS getbasetype
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attname = coalesce(wanted, 'is_deleted') AND a.attnum > 0 AND NOT a.attisdropped) c;
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
REVOKE ALL ON FUNCTION lead_audit.soft_delete_column_of(regclass, name) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.soft_delete_column_of(regclass, name) IS 'Internal to enable(): the soft-delete column to use. Errors 42703, 42804.';

-- These two are SQL, which an older library would run without knowing what it is about.
CREATE FUNCTION lead_audit.require_library() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'require_library_wrapper';
REVOKE ALL ON FUNCTION lead_audit.require_library() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.require_library() IS 'Internal to enable() and disable(): error 55000 where the library is older than these SQL objects.';

CREATE FUNCTION lead_audit.watch_table(relation regclass, soft_delete_column name, baseline boolean, replica boolean)
RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
  watching lead_audit.watch;
  wanted lead_audit.watch;
  above regclass;
  part record;
BEGIN
  PERFORM lead_audit.require_library();
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

CREATE FUNCTION lead_audit.enable(relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.watch_table($1, $2, $3, NULL)
$$;
CREATE FUNCTION lead_audit.enable(relation regclass, replica boolean, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT lead_audit.watch_table($1, $3, $4, $2)
$$;
REVOKE ALL ON FUNCTION lead_audit.enable(regclass, name, boolean), lead_audit.enable(regclass, boolean, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.enable(regclass, name, boolean) IS 'Watches a table from now on, with its partitions and child tables; returns its identity. A second call changes nothing but what it is given. soft_delete_column: by default is_deleted, if there is such a boolean column. baseline: first write one SNAPSHOT entry for each row already there. Errors: 42P01 no such relation, 42809 not a permanent table, or one that is watched as a part of another, 42703 or 42804 no such boolean column.';
COMMENT ON FUNCTION lead_audit.enable(regclass, boolean, name, boolean) IS 'The same. replica: whether rows are recorded, too, that logical replication or session_replication_role = replica brings; false until it is said.';

CREATE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := lead_audit.watch_of(relation);
  above regclass;
BEGIN
  PERFORM lead_audit.require_library();
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
REVOKE ALL ON FUNCTION lead_audit.disable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.disable(regclass) IS 'Stops watching a table; the trail so far stays, and the end of watching is an entry (DDL). True if it was watched. Who may execute this may also switch the triggers off by ALTER TABLE. Errors: 42P01 no such relation, 42809 one that is watched as a part of another.';
