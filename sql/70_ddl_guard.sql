-- Keeps an eye on the audit triggers: the owner of a table can ALTER TABLE … DISABLE TRIGGER or DROP TRIGGER, which would
-- end the watching without anybody having allowed it. Refused to those who may not call disable(); for the others, and
-- where the table itself goes, an entry says who did it and with which command.
CREATE FUNCTION lead_audit.may_disable(who oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;
REVOKE ALL ON FUNCTION lead_audit.may_disable(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.may_disable(oid) IS 'Internal: whether a role may stop the watching of a table.';

-- What is refused is decided first, on its own, and STABLE: the library runs it with the newest snapshot, so that what a
-- transaction saw when it began (REPEATABLE READ) does not count. It goes by the triggers, not by what is known of tables.
CREATE FUNCTION lead_audit.refuse_ddl(invoker oid, is_drop boolean) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused text;
BEGIN
  IF lead_audit.may_disable(invoker) THEN
    RETURN;
  END IF;
  IF is_drop THEN
    SELECT format('%I.%I', d.address_names[1], d.address_names[2]) INTO refused
    FROM pg_event_trigger_dropped_objects() d
    WHERE d.object_type = 'trigger' AND d.address_names[3] IN ('00_lead_audit_row', '00_lead_audit_truncate')
      AND NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() t
                      WHERE t.object_type = 'table' AND t.address_names = d.address_names[1:2])
    LIMIT 1;
  ELSE
    WITH command AS (
      SELECT c.classid, c.objid,
             CASE c.classid WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = c.objid) ELSE c.objid END AS relation
      FROM pg_event_trigger_ddl_commands() c WHERE c.classid IN ('pg_class'::regclass, 'pg_trigger'::regclass)
    ), affected AS (
      -- A command on a partitioned table reaches its partitions.
      SELECT relation FROM command UNION
      SELECT p.relid FROM command c CROSS JOIN LATERAL pg_partition_tree(c.relation) p
      WHERE EXISTS (SELECT FROM pg_class r WHERE r.oid = c.relation AND r.relkind = 'p')
    )
    SELECT f.relation::regclass::text INTO refused
    FROM affected f
    WHERE EXISTS (SELECT FROM lead_audit.audit_trigger a JOIN lead_audit.watch w ON w.watch_id = a.watch_id AND w.state = 'on'
                  WHERE a.relation = f.relation AND NOT a.is_on)
       OR EXISTS (SELECT FROM lead_audit.watched_relation m JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
                  WHERE m.relation = f.relation AND m.is_root
                    AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = m.relation AND a.watch_id = m.watch_id AND a.is_row))
       OR EXISTS (SELECT FROM command c JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
                  WHERE t.tgrelid = f.relation AND t.tgparentid = 0
                    AND (t.tgname IN ('00_lead_audit_row', '00_lead_audit_truncate')
                         OR t.tgfoid IN ('lead_audit.capture()'::regprocedure, 'lead_audit.capture_truncate()'::regprocedure)))
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
REVOKE ALL ON FUNCTION lead_audit.refuse_ddl(oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.refuse_ddl(oid, boolean) IS 'Internal to the DDL guard: refuses a command that ends the watching of a table to those who may not. Error 42501.';

CREATE FUNCTION lead_audit.note_state(watching lead_audit.watch, new_state text, relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit.write_ddl(watching.watch_id, relation, watching.table_schema, watching.table_name, current_query());
  UPDATE lead_audit.watch w
  SET state = new_state, ended_at = CASE new_state WHEN 'dropped' THEN clock_timestamp() END
  WHERE w.watch_id = watching.watch_id;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.note_state(lead_audit.watch, text, oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.note_state(lead_audit.watch, text, oid) IS 'Internal: takes note of a change in the watching of a table, as an entry.';

CREATE FUNCTION lead_audit.after_ddl(made_partition boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
  member record;
  touched oid[] := (SELECT array_agg(CASE c.classid WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = c.objid) ELSE c.objid END)
                    FROM pg_event_trigger_ddl_commands() c WHERE c.classid IN ('pg_class'::regclass, 'pg_trigger'::regclass));
BEGIN
  FOR seen IN
    SELECT w, t.tgrelid, t.tgname IN ('00_lead_audit_row', '00_lead_audit_truncate') AND a.relation IS NULL AS replaced
    FROM pg_event_trigger_ddl_commands() c
    JOIN pg_trigger t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
    JOIN lead_audit.watched_relation m ON m.relation = t.tgrelid
    JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
    LEFT JOIN lead_audit.audit_trigger a ON a.relation = t.tgrelid AND a.trigger_name = t.tgname AND a.watch_id = w.watch_id
  LOOP
    PERFORM lead_audit.warn_of_earlier_triggers(seen.tgrelid);
    -- CREATE OR REPLACE TRIGGER can put another function behind the name.
    IF seen.replaced THEN
      PERFORM lead_audit.note_state(seen.w, 'disabled', seen.tgrelid);
    END IF;
  END LOOP;

  FOR seen IN
    SELECT w, t.root, t.row_on, t.truncate_on
    FROM lead_audit.watch w JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id WHERE w.state IN ('on', 'disabled')
  LOOP
    -- A partition that is gone from the tree took rows with it.
    FOR member IN
      SELECT m.* FROM lead_audit.watched_relation m JOIN pg_class c ON c.oid = m.relation
      WHERE m.watch_id = (seen.w).watch_id AND NOT m.is_root
        AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = m.relation AND a.watch_id = m.watch_id AND a.is_row)
    LOOP
      PERFORM lead_audit.write_ddl(member.watch_id, member.relation, member.table_schema, member.table_name, current_query());
      DELETE FROM lead_audit.watched_relation m WHERE m.relation = member.relation;
      EXECUTE format('DROP TRIGGER IF EXISTS "00_lead_audit_truncate" ON %s', member.relation::regclass);
    END LOOP;
    -- A partition that is new has the row trigger from its parent, the other one it gets here. Only as part of the command
    -- that made it one: a restore makes partitions first and brings their triggers later, the parent's before theirs.
    FOR member IN
      SELECT DISTINCT a.relation FROM lead_audit.audit_trigger a
      WHERE made_partition AND a.watch_id = (seen.w).watch_id AND a.is_row AND NOT a.is_own
        AND NOT EXISTS (SELECT FROM lead_audit.watched_relation m WHERE m.relation = a.relation)
        AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger o WHERE o.relation = a.relation AND NOT o.is_row)
    LOOP
      PERFORM lead_audit.make_truncate_trigger(member.relation::regclass, (seen.w).watch_id);
      touched := touched || member.relation;
    END LOOP;
  END LOOP;

  -- Only triggers that exist are judged: in a restore the table is there before them. Those that go are seen by after_drop().
  FOR seen IN
    SELECT w, t.root, t.row_on AND t.truncate_on AS complete,
           EXISTS (SELECT FROM lead_audit.audit_trigger a JOIN lead_audit.watched_relation m ON m.relation = a.relation
                   WHERE a.watch_id = w.watch_id AND NOT a.is_on) AS some_off
    FROM lead_audit.watch w JOIN lead_audit.trigger_state t ON t.watch_id = w.watch_id WHERE w.state IN ('on', 'disabled')
  LOOP
    -- A relation that a restore brought is taken note of when a command first touches it; what that command did to its
    -- triggers (pg_dump --disable-triggers switches them off while it loads the data) is the restore's doing.
    IF (seen.w).state = 'on' AND seen.some_off THEN
      PERFORM lead_audit.note_state(seen.w, 'disabled', seen.root);
    ELSIF (seen.w).state = 'disabled' AND seen.complete THEN
      PERFORM lead_audit.note_state(seen.w, 'on', seen.root);
    END IF;
    PERFORM lead_audit.follow_soft_delete_column((seen.w).watch_id);
    PERFORM lead_audit.note_relations((seen.w).watch_id, touched);
  END LOOP;

  -- A root that is known and has lost its row trigger otherwise than by DROP TRIGGER: replaced through a partitioned table above.
  FOR seen IN
    SELECT w, m.relation FROM lead_audit.watched_relation m JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
    WHERE m.is_root AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.relation)
      AND NOT EXISTS (SELECT FROM lead_audit.audit_trigger a WHERE a.relation = m.relation AND a.watch_id = m.watch_id AND a.is_row)
  LOOP
    PERFORM lead_audit.note_state(seen.w, 'disabled', seen.relation);
  END LOOP;

  UPDATE lead_audit.watched_relation m SET table_schema = n.nspname, table_name = c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = m.relation AND (m.table_schema, m.table_name) IS DISTINCT FROM (n.nspname::text, c.relname::text);
  UPDATE lead_audit.watch w SET table_schema = m.table_schema, table_name = m.table_name
  FROM lead_audit.watched_relation m
  WHERE m.watch_id = w.watch_id AND m.is_root AND w.state <> 'changing'
    AND (w.table_schema, w.table_name) IS DISTINCT FROM (m.table_schema, m.table_name);
END
$$;
REVOKE ALL ON FUNCTION lead_audit.after_ddl(boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_ddl(boolean) IS 'Internal to the DDL guard: compares the audit triggers with what is known of them at the end of a DDL command.';

CREATE FUNCTION lead_audit.follow_soft_delete_column(identity uuid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  renamed record;
BEGIN
  SELECT m.relation::regclass AS root, b.attname INTO renamed
  FROM lead_audit.watched_relation m JOIN lead_audit.watch w ON w.watch_id = m.watch_id
  JOIN pg_attribute b ON b.attrelid = m.relation AND b.attnum = m.soft_delete_attnum AND NOT b.attisdropped
  WHERE m.watch_id = identity AND m.is_root AND b.attname <> w.soft_delete_column AND w.state = 'on';
  IF FOUND THEN
    UPDATE lead_audit.watch w SET soft_delete_column = renamed.attname WHERE w.watch_id = identity;
    PERFORM lead_audit.make_triggers(renamed.root, identity, renamed.attname);
  END IF;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.follow_soft_delete_column(uuid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.follow_soft_delete_column(uuid) IS 'Internal to the DDL guard: a renamed soft-delete column stays the soft-delete column.';

CREATE FUNCTION lead_audit.after_drop() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
BEGIN
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

  FOR gone IN
    SELECT DISTINCT w, m.relation
    FROM pg_event_trigger_dropped_objects() d
    JOIN lead_audit.watched_relation m ON d.address_names[1:2] = ARRAY[m.table_schema, m.table_name]
    JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
    WHERE d.object_type = 'trigger' AND d.address_names[3] IN ('00_lead_audit_row', '00_lead_audit_truncate')
  LOOP
    PERFORM lead_audit.note_state(gone.w, 'disabled', gone.relation);
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit.after_drop() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_drop() IS 'Internal to the DDL guard: takes note of dropped audit triggers, watched tables and partitions.';

CREATE FUNCTION lead_audit.guard_ddl() RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_ddl';
REVOKE ALL ON FUNCTION lead_audit.guard_ddl() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.guard_ddl() IS 'Event trigger: calls after_ddl() or after_drop() with the rights of the extension''s owner.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX', 'ALTER SCHEMA')
  EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_ddl IS 'Notices audit triggers that are switched off or replaced, watched tables that are renamed, and partitions that come and go.';
CREATE EVENT TRIGGER lead_audit_drop ON sql_drop EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_drop IS 'Notices audit triggers and watched tables that are dropped.';
