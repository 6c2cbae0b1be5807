-- Keeps an eye on the audit triggers: the owner of a table can ALTER TABLE … DISABLE TRIGGER or DROP TRIGGER, which would
-- end the watching without anybody having allowed it. Refused to those who may not call disable(); for the others, and
-- where the table itself goes, an entry says who did it and with which command.
CREATE FUNCTION lead_audit.may_disable(who oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;
REVOKE ALL ON FUNCTION lead_audit.may_disable(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.may_disable(oid) IS 'Internal: whether a role may stop the watching of a table.';

CREATE FUNCTION lead_audit.note_state(watching lead_audit.watch, new_state text, relation oid, invoker oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF new_state = 'disabled' AND NOT lead_audit.may_disable(invoker) THEN
    RAISE EXCEPTION 'permission denied to disable the audit triggers of table %', format('%I.%I', watching.table_schema, watching.table_name)
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'The table is watched by lead_audit. Being its owner does not include the right to end that.',
            HINT = 'Name the triggers that you mean instead of ALL or USER, or ask a superuser to run lead_audit.disable().';
  END IF;
  PERFORM lead_audit.write_ddl(watching.watch_id, relation, watching.table_schema, watching.table_name, current_query());
  UPDATE lead_audit.watch w
  SET state = new_state, ended_at = CASE new_state WHEN 'dropped' THEN clock_timestamp() END
  WHERE w.watch_id = watching.watch_id;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.note_state(lead_audit.watch, text, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.note_state(lead_audit.watch, text, oid, oid) IS 'Internal: takes note of a change in the watching of a table, as an entry, or refuses it. Error 42501.';

CREATE FUNCTION lead_audit.after_ddl(invoker oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
  created record;
BEGIN
  -- CREATE OR REPLACE TRIGGER can put another function behind the name.
  FOR created IN
    SELECT w, t.tgrelid
    FROM pg_event_trigger_ddl_commands() c
    JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
    JOIN pg_class r ON r.oid = t.tgrelid JOIN pg_namespace n ON n.oid = r.relnamespace
    JOIN lead_audit.watch w ON w.table_schema = n.nspname AND w.table_name = r.relname AND w.state = 'on'
    WHERE t.tgname IN ('00_lead_audit_row', '00_lead_audit_truncate')
      AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = t.tgrelid AND a.trigger_name = t.tgname AND a.watch_id = w.watch_id)
  LOOP
    PERFORM lead_audit.note_state(created.w, 'disabled', created.tgrelid, invoker);
  END LOOP;
  -- Only triggers that exist are judged: in a restore the table is there before them. Those that go are seen by before_drop_ends.
  FOR seen IN
    SELECT w, a.relation, a.all_on, a.complete, n.nspname, c.relname
    FROM lead_audit.watch w
    JOIN (SELECT watch_id, min(relation::bigint) FILTER (WHERE is_own)::oid AS relation, bool_and(is_on) AS all_on,
                 count(*) FILTER (WHERE is_own) = 2 AS complete
          FROM lead_audit.audit_trigger GROUP BY watch_id) a ON a.watch_id = w.watch_id
    JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE w.state IN ('on', 'disabled')
  LOOP
    IF (seen.w).state = 'on' AND NOT seen.all_on THEN
      PERFORM lead_audit.note_state(seen.w, 'disabled', seen.relation, invoker);
    ELSIF (seen.w).state = 'disabled' AND seen.all_on AND seen.complete THEN
      PERFORM lead_audit.note_state(seen.w, 'on', seen.relation, invoker);
    END IF;
    IF ((seen.w).table_schema, (seen.w).table_name) IS DISTINCT FROM (seen.nspname::text, seen.relname::text) THEN
      UPDATE lead_audit.watch w SET table_schema = seen.nspname, table_name = seen.relname WHERE w.watch_id = (seen.w).watch_id;
    END IF;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.after_ddl(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_ddl(oid) IS 'Internal to the DDL guard: compares the audit triggers with lead_audit.watch at the end of a DDL command. Error 42501.';

CREATE FUNCTION lead_audit.after_drop(invoker oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
BEGIN
  FOR gone IN
    WITH dropped AS MATERIALIZED (SELECT * FROM pg_event_trigger_dropped_objects())
    SELECT w, (SELECT t.objid FROM dropped t
               WHERE t.object_type = 'table' AND t.address_names = ARRAY[w.table_schema, w.table_name]) AS relation
    FROM lead_audit.watch w
    WHERE w.state IN ('on', 'disabled')
      AND EXISTS (SELECT FROM dropped d
                  WHERE d.object_type = 'trigger' AND d.address_names[1:2] = ARRAY[w.table_schema, w.table_name]
                    AND d.address_names[3] IN ('00_lead_audit_row', '00_lead_audit_truncate'))
  LOOP
    IF gone.relation IS NOT NULL THEN
      PERFORM lead_audit.note_state(gone.w, 'dropped', gone.relation, invoker);
    ELSIF (gone.w).state = 'on' THEN
      PERFORM lead_audit.note_state(gone.w, 'disabled', NULL, invoker);
    END IF;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.after_drop(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_drop(oid) IS 'Internal to the DDL guard: takes note of dropped audit triggers and dropped watched tables. Error 42501.';

CREATE FUNCTION lead_audit.guard_ddl() RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_ddl';
REVOKE ALL ON FUNCTION lead_audit.guard_ddl() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.guard_ddl() IS 'Event trigger: calls after_ddl() or after_drop() with the rights of the extension''s owner.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER SCHEMA')
  EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_ddl IS 'Notices audit triggers that are switched off or replaced, and watched tables that are renamed.';
CREATE EVENT TRIGGER lead_audit_drop ON sql_drop EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_drop IS 'Notices audit triggers and watched tables that are dropped.';
