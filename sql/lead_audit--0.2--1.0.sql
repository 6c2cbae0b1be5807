-- From 0.2 to 1.0. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- What leads from 0.2 to 1.0 and cannot be worked out from sql/*.sql: nothing. See scripts/upgrade_script.py.

CREATE FUNCTION lead_audit.require_library() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'require_library_wrapper';

REVOKE ALL ON FUNCTION lead_audit.require_library() FROM PUBLIC;

COMMENT ON FUNCTION lead_audit.require_library() IS 'Internal to enable() and disable(): error 55000 where the library is older than these SQL objects.';

CREATE OR REPLACE FUNCTION lead_audit.watch_table(relation regclass, soft_delete_column name, baseline boolean, replica boolean)
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

CREATE OR REPLACE FUNCTION lead_audit.disable(relation regclass) RETURNS boolean
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
