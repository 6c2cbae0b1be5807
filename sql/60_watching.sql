-- enable(), disable() and what they rest on.

-- The audit triggers there really are, with the identity that they carry. The link is the trigger itself.
CREATE VIEW lead_audit.audit_trigger AS
SELECT CASE WHEN a.argument ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN a.argument::pg_catalog.uuid END AS watch_id,
       t.tgrelid AS relation, t.tgname AS trigger_name,
       t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL AND t.tgname IN ('00_lead_audit_row', '00_lead_audit_truncate') AS is_on,
       t.tgparentid = 0 AS is_own
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_trigger t ON t.oid = d.objid
CROSS JOIN LATERAL (SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)) a(argument)
WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND d.refobjid IN ('lead_audit.capture()'::pg_catalog.regprocedure, 'lead_audit.capture_truncate()'::pg_catalog.regprocedure);
REVOKE ALL ON lead_audit.audit_trigger FROM PUBLIC;
COMMENT ON VIEW lead_audit.audit_trigger IS 'Internal: the triggers that call lead_audit, and whether each is on.';

CREATE VIEW lead_audit.watched AS
SELECT coalesce(t.relation::pg_catalog.regclass::text, pg_catalog.format('%I.%I', w.table_schema, w.table_name)) AS relation,
       coalesce(t.row_on, false) AS row_trigger_on,
       coalesce(t.truncate_on, false) AS truncate_trigger_on,
       coalesce(w.state, 'unregistered') AS state,
       w.soft_delete_column, w.enabled_at, w.baseline_at, coalesce(w.watch_id, t.watch_id) AS watch_id
FROM (SELECT * FROM lead_audit.watch WHERE state IN ('on', 'disabled')) w
FULL JOIN (SELECT a.watch_id,
                  min(a.relation::bigint) FILTER (WHERE a.is_own)::oid AS relation,
                  bool_and(a.is_on) FILTER (WHERE a.trigger_name = '00_lead_audit_row') AS row_on,
                  bool_and(a.is_on) FILTER (WHERE a.trigger_name = '00_lead_audit_truncate') AS truncate_on
           FROM lead_audit.audit_trigger a GROUP BY a.watch_id) t ON t.watch_id = w.watch_id;
REVOKE ALL ON lead_audit.watched FROM PUBLIC;
COMMENT ON VIEW lead_audit.watched IS 'The tables that are watched, and whether their triggers really are there and on.';
COMMENT ON COLUMN lead_audit.watched.relation IS 'The table, quoted and with its schema where needed.';
COMMENT ON COLUMN lead_audit.watched.row_trigger_on IS 'Whether INSERT, UPDATE and DELETE are recorded.';
COMMENT ON COLUMN lead_audit.watched.truncate_trigger_on IS 'Whether TRUNCATE is recorded.';
COMMENT ON COLUMN lead_audit.watched.state IS 'on, disabled (by hand), or unregistered (triggers without a row in lead_audit.watch, as after restoring the table alone; entries are written all the same).';
COMMENT ON COLUMN lead_audit.watched.soft_delete_column IS 'The column whose turning true marks a soft delete.';
COMMENT ON COLUMN lead_audit.watched.enabled_at IS 'When watching began.';
COMMENT ON COLUMN lead_audit.watched.baseline_at IS 'When a baseline was written, or NULL.';
COMMENT ON COLUMN lead_audit.watched.watch_id IS 'The table''s identity, in each of its entries.';

CREATE FUNCTION lead_audit.watch_of(relation regclass) RETURNS uuid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(
    (SELECT a.watch_id FROM lead_audit.audit_trigger a WHERE a.relation = $1::oid ORDER BY a.trigger_name LIMIT 1),
    (SELECT w.watch_id FROM lead_audit.watch w JOIN pg_class c ON c.relname = w.table_name
       JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = w.table_schema
     WHERE c.oid = $1::oid AND w.state <> 'dropped' ORDER BY w.enabled_at DESC LIMIT 1))
$$;
REVOKE ALL ON FUNCTION lead_audit.watch_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.watch_of(regclass) IS 'Internal: the identity of a table that is or was watched; NULL if it never was.';

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
     OR (SELECT count(*) FROM lead_audit.audit_trigger a WHERE a.relation = class.oid AND a.is_on) <> 2 THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER "00_lead_audit_row" AFTER INSERT OR UPDATE OR DELETE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION lead_audit.capture(%L, %L)', relation, watching.watch_id, coalesce(column_name, ''));
    EXECUTE format('CREATE OR REPLACE TRIGGER "00_lead_audit_truncate" BEFORE TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION lead_audit.capture_truncate(%L)', relation, watching.watch_id);
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER "00_lead_audit_row", ENABLE TRIGGER "00_lead_audit_truncate"', relation);
  END IF;

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
  watching lead_audit.watch;
  identity uuid := lead_audit.watch_of(relation);
  own_triggers name[];
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation) THEN
    RAISE EXCEPTION 'relation to stop watching does not exist' USING ERRCODE = 'undefined_table';
  END IF;
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation);
  SELECT * INTO watching FROM lead_audit.watch w WHERE w.watch_id = identity;
  SELECT array_agg(a.trigger_name) INTO own_triggers FROM lead_audit.audit_trigger a WHERE a.relation = $1::oid AND a.is_own;
  IF own_triggers IS NULL AND coalesce(watching.state, 'off') = 'off' THEN
    RETURN false;
  END IF;
  UPDATE lead_audit.watch w SET state = 'changing' WHERE w.watch_id = identity;
  PERFORM lead_audit.write_ddl(identity, c.oid, n.nspname, c.relname, current_query())
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  FOR i IN 1 .. coalesce(array_length(own_triggers, 1), 0) LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', own_triggers[i], relation);
  END LOOP;
  UPDATE lead_audit.watch w SET state = 'off', ended_at = clock_timestamp(), baseline_at = NULL WHERE w.watch_id = identity;
  RETURN true;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.disable(regclass) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.disable(regclass) IS 'Stops watching a table; the trail so far stays, and the end of watching is an entry (DDL). True if it was watched. Who may execute this may also switch the triggers off by ALTER TABLE.';
