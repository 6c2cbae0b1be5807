-- enable(), disable() and what they rest on.

-- The audit triggers there really are, with the identity that they carry. The link is the trigger itself.
CREATE VIEW lead_audit.audit_trigger AS
SELECT CASE WHEN a.argument ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN a.argument::pg_catalog.uuid END AS watch_id,
       t.tgrelid AS relation, t.tgname AS trigger_name, k.is_row, t.tgparentid = 0 AS is_own,
       -- On, and for every event that it is there for: 29 is AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, 34 is BEFORE
       -- TRUNCATE (TRIGGER_TYPE_… in catalog/pg_trigger.h).
       t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL AND t.tgattr = ''::pg_catalog.int2vector AND NOT t.tgdeferrable
         AND (t.tgname, t.tgtype) IN (('00_lead_audit_row', 29), ('00_lead_audit_truncate', 34))
         AND k.is_row = (t.tgtype = 29) AS is_on
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_trigger t ON t.oid = d.objid
CROSS JOIN LATERAL (SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)) a(argument)
CROSS JOIN LATERAL (SELECT d.refobjid = 'lead_audit.capture()'::pg_catalog.regprocedure) k(is_row)
WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND d.refobjid IN ('lead_audit.capture()'::pg_catalog.regprocedure, 'lead_audit.capture_truncate()'::pg_catalog.regprocedure);
REVOKE ALL ON lead_audit.audit_trigger FROM PUBLIC;
COMMENT ON VIEW lead_audit.audit_trigger IS 'Internal: the triggers that call lead_audit, and whether each is on.';

-- Of each watched table: its root, and whether rows and TRUNCATE are recorded in all of its relations.
CREATE VIEW lead_audit.trigger_state AS
SELECT r.watch_id,
       min(r.relation::bigint) FILTER (WHERE r.is_root)::oid AS root,
       bool_and(r.row_on) AS row_on, bool_and(r.truncate_on) AS truncate_on
FROM (SELECT a.watch_id, a.relation,
             bool_or(a.is_own AND (a.is_row OR NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
               WHERE i.inhrelid = a.relation AND i.inhparent IN (SELECT x.relation FROM lead_audit.audit_trigger x WHERE x.watch_id = a.watch_id)))) AS is_root,
             coalesce(bool_and(a.is_on) FILTER (WHERE a.is_row), false) AS row_on,
             coalesce(bool_and(a.is_on) FILTER (WHERE NOT a.is_row), false) AS truncate_on
      FROM lead_audit.audit_trigger a GROUP BY a.watch_id, a.relation) r
GROUP BY r.watch_id;
REVOKE ALL ON lead_audit.trigger_state FROM PUBLIC;
COMMENT ON VIEW lead_audit.trigger_state IS 'Internal: whether the triggers of each watched table, its partitions included, are all on.';

CREATE VIEW lead_audit.watched AS
SELECT coalesce(t.root::pg_catalog.regclass::text, pg_catalog.format('%I.%I', w.table_schema, w.table_name)) AS relation,
       coalesce(t.row_on, false) AS row_trigger_on,
       coalesce(t.truncate_on, false) AS truncate_trigger_on,
       coalesce(w.state, 'unregistered') AS state,
       w.soft_delete_column, w.enabled_at, w.baseline_at, coalesce(w.watch_id, t.watch_id) AS watch_id
FROM (SELECT * FROM lead_audit.watch WHERE state IN ('on', 'disabled')) w
FULL JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id;
REVOKE ALL ON lead_audit.watched FROM PUBLIC;
COMMENT ON VIEW lead_audit.watched IS 'The tables that are watched, and whether their triggers really are there and on.';
COMMENT ON COLUMN lead_audit.watched.relation IS 'The table, quoted and with its schema where needed.';
COMMENT ON COLUMN lead_audit.watched.row_trigger_on IS 'Whether every INSERT, UPDATE and DELETE is recorded, in all partitions.';
COMMENT ON COLUMN lead_audit.watched.truncate_trigger_on IS 'Whether TRUNCATE is recorded, of partitions too.';
COMMENT ON COLUMN lead_audit.watched.state IS 'on, disabled (by hand), or unregistered (triggers without a row in lead_audit.watch, as after restoring the table alone; entries are written all the same).';
COMMENT ON COLUMN lead_audit.watched.soft_delete_column IS 'The column whose turning true marks a soft delete.';
COMMENT ON COLUMN lead_audit.watched.enabled_at IS 'When watching began.';
COMMENT ON COLUMN lead_audit.watched.baseline_at IS 'When a baseline was written, or NULL.';
COMMENT ON COLUMN lead_audit.watched.watch_id IS 'The table''s identity, in each of its entries.';

CREATE FUNCTION lead_audit.watch_of(relation regclass) RETURNS uuid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = $1::oid ORDER BY a.trigger_name LIMIT 1),
    (SELECT m.watch_id FROM lead_audit.watched_relation m WHERE m.relation = $1::oid),
    (SELECT w.watch_id FROM lead_audit.watch w JOIN pg_class c ON c.relname = w.table_name
       JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = w.table_schema
     WHERE c.oid = $1::oid AND w.state <> 'dropped' ORDER BY w.enabled_at DESC LIMIT 1))
$$;
REVOKE ALL ON FUNCTION lead_audit.watch_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.watch_of(regclass) IS 'Internal: the identity of a table that is or was watched; NULL if it never was.';

CREATE FUNCTION lead_audit.make_triggers(relation regclass, watch_id uuid, soft_delete_column text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stray name;
  member regclass;
BEGIN
  FOR stray IN SELECT a.trigger_name FROM lead_audit.audit_trigger a
               WHERE a.relation = $1::oid AND a.is_own AND a.trigger_name NOT IN ('00_lead_audit_row', '00_lead_audit_truncate')
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', stray, relation);
  END LOOP;
  EXECUTE format('CREATE OR REPLACE TRIGGER "00_lead_audit_row" AFTER INSERT OR UPDATE OR DELETE ON %s '
                 'FOR EACH ROW EXECUTE FUNCTION lead_audit.capture(%L, %L)', relation, watch_id, coalesce(soft_delete_column, ''));
  EXECUTE format('ALTER TABLE %s ENABLE TRIGGER "00_lead_audit_row"', relation);
  FOR member IN SELECT relation UNION SELECT p.relid FROM pg_partition_tree(relation) p
                WHERE (SELECT c.relkind FROM pg_class c WHERE c.oid = p.relid) IN ('r', 'p')
  LOOP
    PERFORM lead_audit.make_truncate_trigger(member, watch_id);
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.make_triggers(regclass, uuid, text) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.make_triggers(regclass, uuid, text) IS 'Internal to enable() and the DDL guard: makes the audit triggers of a table, or mends them.';

-- Postgres gives a row trigger to all partitions by itself, a statement trigger it does not.
CREATE FUNCTION lead_audit.make_truncate_trigger(relation regclass, watch_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE TRIGGER "00_lead_audit_truncate" BEFORE TRUNCATE ON %s '
                 'FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.capture_truncate(%L)', relation, watch_id);
  EXECUTE format('ALTER TABLE %s ENABLE TRIGGER "00_lead_audit_truncate"', relation);
END
$$;
REVOKE ALL ON FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) IS 'Internal: the TRUNCATE trigger of a watched table or of one of its partitions.';

CREATE FUNCTION lead_audit.note_relations(identity uuid, touched oid[]) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO lead_audit.watched_relation AS known (relation, watch_id, is_root, table_schema, table_name, soft_delete_attnum)
  SELECT c.oid, s.watch_id, c.oid = s.root, n.nspname, c.relname,
         (SELECT b.attnum FROM pg_attribute b JOIN lead_audit.watch w ON w.watch_id = s.watch_id
          WHERE b.attrelid = c.oid AND b.attname = w.soft_delete_column AND NOT b.attisdropped)
  FROM lead_audit.trigger_state s
  JOIN (SELECT DISTINCT a.watch_id, a.relation FROM lead_audit.audit_trigger a WHERE a.is_row) a ON a.watch_id = s.watch_id
  JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE s.watch_id = identity AND (touched IS NULL OR c.oid = ANY (touched))
  ON CONFLICT (relation) DO UPDATE
  SET watch_id = excluded.watch_id, is_root = excluded.is_root, table_schema = excluded.table_schema,
      table_name = excluded.table_name, soft_delete_attnum = excluded.soft_delete_attnum
  WHERE (known.*) IS DISTINCT FROM (excluded.*)
$$;
REVOKE ALL ON FUNCTION lead_audit.note_relations(uuid, oid[]) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.note_relations(uuid, oid[]) IS 'Internal: takes note of a watched table and its partitions, or of those of them that are given.';

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

CREATE FUNCTION lead_audit.enable(relation regclass, soft_delete_column name DEFAULT NULL, baseline boolean DEFAULT false)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  class record;
  watching lead_audit.watch;
  column_name text;
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
  column_name := lead_audit.soft_delete_column_of(relation, soft_delete_column);

  SELECT * INTO watching FROM lead_audit.watch w WHERE w.watch_id = lead_audit.watch_of(relation);
  IF watching.watch_id IS NULL THEN
    -- Triggers that came with a restored table keep the identity that they carry.
    INSERT INTO lead_audit.watch (watch_id, table_schema, table_name, soft_delete_column, state)
    VALUES (coalesce(lead_audit.watch_of(relation), gen_random_uuid()), class.nspname, class.relname, column_name, 'changing')
    RETURNING * INTO watching;
  ELSE
    IF soft_delete_column IS NULL AND watching.state = 'on' THEN
      column_name := watching.soft_delete_column;
    END IF;
    UPDATE lead_audit.watch w
    SET table_schema = class.nspname, table_name = class.relname, soft_delete_column = column_name, state = 'changing', ended_at = NULL,
        enabled_at = CASE watching.state WHEN 'off' THEN clock_timestamp() ELSE w.enabled_at END
    WHERE w.watch_id = watching.watch_id;
  END IF;

  IF watching.soft_delete_column IS DISTINCT FROM column_name
     OR NOT EXISTS (SELECT FROM lead_audit.trigger_state t WHERE t.watch_id = watching.watch_id AND t.root = class.oid AND t.row_on AND t.truncate_on)
     OR EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = class.oid AND NOT a.is_on) THEN
    PERFORM lead_audit.make_triggers(relation, watching.watch_id, column_name);
  END IF;
  PERFORM lead_audit.note_relations(watching.watch_id, NULL);
  PERFORM lead_audit.warn_of_earlier_triggers(relation);

  IF baseline AND watching.baseline_at IS NOT NULL THEN
    RAISE NOTICE '% already has a baseline, written at %', relation, watching.baseline_at;
  ELSIF baseline THEN
    PERFORM lead_audit.write_baseline(relation, watching.watch_id, coalesce(column_name, ''));
    UPDATE lead_audit.watch w SET baseline_at = clock_timestamp() WHERE w.watch_id = watching.watch_id;
  END IF;
  UPDATE lead_audit.watch w SET state = 'on' WHERE w.watch_id = watching.watch_id;
  RETURN watching.watch_id;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.enable(regclass, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.enable(regclass, name, boolean) IS 'Watches a table from now on; returns its identity. A second call changes nothing but what it is given. soft_delete_column: by default is_deleted, if there is such a boolean column. baseline: first write one SNAPSHOT entry for each row already there. Errors: 42P01 no such relation, 42809 not a permanent table, 42703 or 42804 no such boolean column.';

CREATE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := lead_audit.watch_of(relation);
  own record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation) THEN
    RAISE EXCEPTION 'relation to stop watching does not exist' USING ERRCODE = 'undefined_table';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  IF NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.watch_id = identity)
     AND NOT EXISTS (SELECT FROM lead_audit.watch w WHERE w.watch_id = identity AND w.state <> 'off') THEN
    RETURN false;
  END IF;
  UPDATE lead_audit.watch w SET state = 'changing' WHERE w.watch_id = identity;
  PERFORM lead_audit.write_ddl(identity, c.oid, n.nspname, c.relname, current_query())
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  FOR own IN SELECT a.relation::regclass AS on_relation, a.trigger_name FROM lead_audit.audit_trigger a
             WHERE a.watch_id = identity AND a.is_own ORDER BY a.is_row DESC
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', own.trigger_name, own.on_relation);
  END LOOP;
  -- The table itself stays known, so that its history is found if it is renamed.
  DELETE FROM lead_audit.watched_relation m WHERE m.watch_id = identity AND NOT m.is_root;
  UPDATE lead_audit.watch w SET state = 'off', ended_at = clock_timestamp(), baseline_at = NULL WHERE w.watch_id = identity;
  RETURN true;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.disable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.disable(regclass) IS 'Stops watching a table; the trail so far stays, and the end of watching is an entry (DDL). True if it was watched. Who may execute this may also switch the triggers off by ALTER TABLE.';
