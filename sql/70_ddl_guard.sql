-- Keeps an eye on the audit triggers: the owner of a table can ALTER TABLE ... DISABLE TRIGGER or DROP TRIGGER, which would
-- end the watching without anybody having allowed it. Refused to those who may not call disable(); for the others, and
-- where the table itself goes, an entry says who did it and with which command.
CREATE FUNCTION lead_audit.may_disable(who oid) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;
REVOKE ALL ON FUNCTION lead_audit.may_disable(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.may_disable(oid) IS 'Internal: whether a role may stop the watching of a table.';

-- The relations that a command is about, and for the triggers among its objects also which.
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
-- A command on a table reaches its partitions and child tables.
CREATE FUNCTION lead_audit.affected_relations(is_drop boolean) RETURNS SETOF oid LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM (SELECT DISTINCT c.relation FROM lead_audit.relations_of_command($1) c) c CROSS JOIN LATERAL lead_audit.members_of(c.relation) m
$$;
REVOKE ALL ON FUNCTION lead_audit.relations_of_command(boolean), lead_audit.affected_relations(boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.relations_of_command(boolean) IS 'Internal to the DDL guard: the relations that the command names.';
COMMENT ON FUNCTION lead_audit.affected_relations(boolean) IS 'Internal to the DDL guard: those relations, their partitions and child tables.';

-- What is refused is decided first, on its own, and STABLE: the library runs it with the newest snapshot, so that what a
-- transaction saw when it began (REPEATABLE READ) does not count.
CREATE FUNCTION lead_audit.refuse_ddl(invoker oid, is_drop boolean) RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION lead_audit.refuse_ddl(oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.refuse_ddl(oid, boolean) IS 'Internal to the DDL guard: refuses a command that ends the watching of a table to those who may not. Error 42501.';

-- Sealing goes by the order in which ids are given out, and by each being given out once.
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

-- A partition that is detached, a child table that inherits no more: its rows stay watched, under an identity of its own. Otherwise
-- an owner could take them out, change them and put them back.
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
-- A partition or child table that is new: its rows are the watched table's from now on. Only as part of the command that made it
-- one: a restore makes tables first and brings their triggers later, in an order of its own.
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

-- Columns and keys that changed, tables that were renamed or moved: values and names are others afterwards, without a row event.
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

CREATE FUNCTION lead_audit.command_effects() RETURNS text[] LANGUAGE c AS 'MODULE_PATHNAME', 'command_effects_wrapper';
REVOKE ALL ON FUNCTION lead_audit.command_effects() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.command_effects() IS 'Internal to the DDL guard: what the command does besides that only its text tells. made: a partition or child table was created; joined: a table became one; rewritten: a column was given a type.';

CREATE FUNCTION lead_audit.after_ddl(made_partition boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION lead_audit.after_ddl(boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_ddl(boolean) IS 'Internal to the DDL guard: called at the end of a DDL command. Its argument is that of version 0.1, and not used any more.';

CREATE FUNCTION lead_audit.after_drop() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION lead_audit.after_drop() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.after_drop() IS 'Internal to the DDL guard: takes note of dropped audit triggers, watched tables, partitions, columns and keys.';

-- Postgres gives a new partition the row trigger of the table above it, and refuses if it has one of that name already.
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

CREATE FUNCTION lead_audit.guard_ddl() RETURNS event_trigger LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_ddl';
REVOKE ALL ON FUNCTION lead_audit.guard_ddl() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.guard_ddl() IS 'Event trigger: calls after_ddl() or after_drop() with the rights of the extension''s owner.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER SEQUENCE')
  EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_ddl IS 'Notices audit triggers that are switched off or replaced, watched tables that are renamed or reshaped, and partitions that come and go.';
CREATE EVENT TRIGGER lead_audit_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_start IS 'Makes way where a watched table becomes a partition of another.';
CREATE EVENT TRIGGER lead_audit_drop ON sql_drop EXECUTE FUNCTION lead_audit.guard_ddl();
ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_drop IS 'Notices audit triggers and watched tables that are dropped.';
