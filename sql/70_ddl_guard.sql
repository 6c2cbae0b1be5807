-- The DDL guard protects the audit triggers. The owner of a table could end the table's watching
-- with ALTER TABLE ... DISABLE TRIGGER or DROP TRIGGER. The DDL guard refuses these commands if
-- the role has no right to execute disable(). If a role with the right to execute disable()
-- disables or drops an audit trigger, an entry records the role and the command. A drop of a
-- watched table also has an entry with the role and the command.
CREATE FUNCTION lead_audit_internal.may_disable(who oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT has_function_privilege(who, 'lead_audit.disable(regclass)', 'EXECUTE')
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.may_disable(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.may_disable(oid) IS
  'Whether a role may end the watching of a table.';

CREATE FUNCTION lead_audit_internal.relations_of_command(is_drop boolean)
RETURNS TABLE (relation oid, trigger_id oid, command text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF is_drop THEN
    RETURN QUERY
      -- The oid of a column is that of its relation. Triggers and constraints name their relation.
      SELECT d.objid, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      WHERE d.classid = 'pg_class'::regclass AND NOT d.is_temporary
        AND EXISTS (SELECT FROM lead_audit_internal.class_of(d.objid))
      UNION ALL
      SELECT r, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      CROSS JOIN LATERAL
        lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
      WHERE d.object_type IN ('trigger', 'table constraint') AND NOT d.is_temporary
        AND r IS NOT NULL
      UNION ALL
      SELECT t, NULL::oid, d.object_type
      FROM pg_event_trigger_dropped_objects() d
      CROSS JOIN LATERAL lead_audit_internal.server_named(d.address_args[1]) s
      CROSS JOIN LATERAL
        lead_audit_internal.foreign_tables_of('pg_foreign_server'::regclass, s) t
      WHERE d.object_type = 'user mapping';
  ELSE
    RETURN QUERY
      SELECT c.objid, NULL::oid, c.command_tag FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass
      UNION ALL
      SELECT t.relation, c.objid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.objid) t
      WHERE c.classid = 'pg_trigger'::regclass
      UNION ALL
      SELECT t, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.tables_with(c.objid) t
      WHERE c.classid = 'pg_type'::regclass AND c.command_tag = 'ALTER TYPE'
      UNION ALL
      SELECT t, NULL::oid, c.command_tag
      FROM pg_event_trigger_ddl_commands() c
      CROSS JOIN LATERAL lead_audit_internal.foreign_tables_of(c.classid, c.objid) t
      WHERE c.classid IN ('pg_foreign_data_wrapper'::regclass, 'pg_foreign_server'::regclass,
                          'pg_user_mapping'::regclass)
      UNION ALL
      -- ALTER SCHEMA does not list the tables in the schema.
      SELECT r, NULL::oid, c.command_tag
      FROM (SELECT c.command_tag FROM pg_event_trigger_ddl_commands() c
            WHERE c.command_tag = 'ALTER SCHEMA' LIMIT 1) c
      CROSS JOIN LATERAL lead_audit_internal.renamed_relations() r;
  END IF;
END
$$;
CREATE FUNCTION lead_audit_internal.affected_relations(is_drop boolean) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m
  FROM (SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command($1) c) c
  CROSS JOIN LATERAL lead_audit_internal.reached_from(c.relation) m
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.relations_of_command(boolean),
  lead_audit_internal.affected_relations(boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.relations_of_command(boolean) IS
  'Returns the relations that the current command changes and, for its triggers, which triggers.';
COMMENT ON FUNCTION lead_audit_internal.affected_relations(boolean) IS
  'Returns the relations that the current command reaches: those that it changes, their '
  'partitions and child tables, and the tables that have columns of their row types.';

-- Raises an error if the DDL guard refuses the command. This check is a separate function and runs
-- first, because an error in the DDL guard's other work must not hide the refusal. A partition or
-- child table that is detached from its watched table loses its audit triggers. The DDL guard does
-- not refuse such a command, and handle_detached() continues the watching of the detached relation
-- under a new watch id. If a superuser has disabled some audit triggers of a table, the table's
-- other audit triggers remain protected.
CREATE FUNCTION lead_audit_internal.refuse_ddl(invoker oid, is_drop boolean) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused text;
  is_parting boolean := 'parted' = ANY (lead_audit_internal.command_effects());
BEGIN
  IF lead_audit_internal.may_disable(invoker) THEN
    RETURN;
  END IF;
  SELECT f::regclass::text INTO refused
  FROM lead_audit_internal.affected_relations(is_drop) f
  WHERE EXISTS (
      SELECT FROM lead_audit_internal.audit_triggers_of(f) a
      CROSS JOIN LATERAL lead_audit_internal.watch_row(a.watch_id) w
      WHERE w.state = 'on' AND NOT a.is_on)
    OR EXISTS (
      SELECT FROM lead_audit_internal.relation_row(f) m
      CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
      WHERE w.state IN ('on', 'disabled') AND m.is_complete
        AND NOT lead_audit_internal.is_complete(f, m.watch_id)
        AND (NOT is_parting OR m.is_root OR EXISTS (
          SELECT FROM lead_audit_internal.ancestors_of(f) p
          CROSS JOIN LATERAL lead_audit_internal.relation_row(p) k
          WHERE k.watch_id = m.watch_id)))
  LIMIT 1;
  IF refused IS NULL AND 'disabled' = ANY (lead_audit_internal.command_effects()) THEN
    -- The command may have enabled the triggers again, after code of the owner has run.
    SELECT c.relation::regclass::text INTO refused
    FROM lead_audit_internal.relations_of_command(is_drop) c
    WHERE EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of(c.relation))
    LIMIT 1;
  END IF;
  IF refused IS NULL AND NOT is_drop THEN
    -- A trigger with the name of an audit trigger would keep a watched table from having one.
    SELECT t.relation::regclass::text INTO refused
    FROM lead_audit_internal.relations_of_command(false) c
    CROSS JOIN LATERAL lead_audit_internal.relation_of_trigger(c.trigger_id) t
    WHERE t.is_own
      AND (t.is_audit OR lead_audit_internal.is_audit_trigger_name(t.trigger_name::name))
    LIMIT 1;
  END IF;
  IF refused IS NULL AND is_drop AND NOT is_parting THEN
    SELECT r::regclass::text INTO refused
    FROM pg_event_trigger_dropped_objects() d
    CROSS JOIN LATERAL
      lead_audit_internal.relation_named(d.address_names[1], d.address_names[2]) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE d.object_type = 'trigger' AND NOT d.is_temporary
      AND lead_audit_internal.is_audit_trigger_name(d.address_names[3]::name)
      AND w.state IN ('on', 'disabled')
    LIMIT 1;
  END IF;
  IF refused IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied to disable the audit triggers of table %', refused
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = 'lead_audit watches the table. Its owner has no right to end that.',
            HINT = 'Name the triggers that you mean instead of ALL or USER, or ask a superuser to '
                   'run lead_audit.disable().';
  END IF;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_ddl(oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_ddl(oid, boolean) IS
  'Refuses a command that ends the watching of a table, unless the role may do that. Error 42501.';

-- Sealing relies on two properties of the sequence lead_audit.entry_id_seq: the sequence gives out
-- ids in ascending order, and gives out each id only once.
CREATE FUNCTION lead_audit_internal.refuse_id_order() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- This check comes first, because the rest reads tables that this command may be repairing.
  IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c
                 WHERE c.classid = 'pg_class'::regclass
                   AND c.objid = to_regclass('lead_audit.entry_id_seq')) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = to_regclass('lead_audit.entry_id_seq')
             AND ((s.seqcache, s.seqincrement) <> (1, 1) OR s.seqcycle))
     OR lead_audit_internal.last_entry() < (SELECT max(e.id) FROM lead_audit.entry e)
  THEN
    RAISE EXCEPTION 'sequence lead_audit.entry_id_seq cannot be altered like this'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'The ids of entries are the order of the events. The sequence gives them out '
                     'one by one, each higher than all before it.',
            HINT = 'Keep INCREMENT 1 CACHE 1 NO CYCLE, and a value above the highest id in '
                   'lead_audit.entry.';
  END IF;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.refuse_id_order() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.refuse_id_order() IS
  'Refuses changes of the sequence that would put ids of entries out of order. Error 55000.';

CREATE FUNCTION lead_audit_internal.note_state(
  watching lead_audit.watch, new_state text, relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM lead_audit_internal.record_command(
    watching.watch_id, relation, watching.table_schema, watching.table_name);
  PERFORM lead_audit_internal.change_watch(watching.watch_id, jsonb_build_object(
    'state', new_state,
    'ended_at', CASE new_state WHEN 'dropped' THEN clock_timestamp() END));
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.note_state(lead_audit.watch, text, oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.note_state(lead_audit.watch, text, oid) IS
  'Changes the state of a watched table, and records it as an entry.';

-- A detached partition stays watched under a new watch id, and so does a former child table after
-- NO INHERIT. Without the new watch id, an owner could detach a partition, change its rows without
-- entries, and attach it again.
CREATE FUNCTION lead_audit_internal.watch_detached(
  watching lead_audit.watch, top lead_audit.watched_relation, parted oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh lead_audit.watch := watching;
BEGIN
  fresh.watch_id := gen_random_uuid();
  fresh.table_schema := top.table_schema;
  fresh.table_name := top.table_name;
  fresh.state := 'changing';
  fresh.enabled_at := clock_timestamp();
  PERFORM lead_audit_internal.put_watch(fresh);
  PERFORM lead_audit_internal.note_earlier_identity(fresh.watch_id, watching.watch_id);
  PERFORM lead_audit_internal.make_triggers(
    top.relation, fresh.watch_id, fresh.soft_delete_column);
  PERFORM lead_audit_internal.note_relations(fresh.watch_id, parted);
  PERFORM lead_audit_internal.change_watch(fresh.watch_id, '{"state": "on"}');
END
$$;
CREATE FUNCTION lead_audit_internal.handle_detached(watching lead_audit.watch, root oid)
RETURNS SETOF oid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members oid[] := array(SELECT lead_audit_internal.members_of(root));
  gone oid[] := array(
    SELECT r FROM lead_audit_internal.relations_of(watching.watch_id) r
    CROSS JOIN LATERAL lead_audit_internal.class_of(r)
    WHERE r <> ALL (members) AND NOT (lead_audit_internal.relation_row(r)).is_root);
  top lead_audit.watched_relation;
  parted oid[];
BEGIN
  FOR top IN
    SELECT m.* FROM unnest(gone) g CROSS JOIN LATERAL lead_audit_internal.relation_row(g) m
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(g) p WHERE p = ANY (gone))
  LOOP
    -- Another session may be about to give one of them a child table.
    PERFORM lead_audit_internal.lock_members(top.relation);
    parted := array(SELECT lead_audit_internal.members_of(top.relation));
    -- PostgreSQL has dropped the row triggers of a partition.
    PERFORM lead_audit_internal.refuse_written(parted);
    PERFORM lead_audit_internal.record_command(
      watching.watch_id, top.relation, top.table_schema, top.table_name);
    PERFORM lead_audit_internal.drop_triggers(watching.watch_id, parted);
    PERFORM lead_audit_internal.forget_relation(p) FROM unnest(parted) p
    WHERE (lead_audit_internal.relation_row(p)).watch_id = watching.watch_id;
    IF watching.state = 'on' THEN
      PERFORM lead_audit_internal.watch_detached(watching, top, parted);
    END IF;
    RETURN NEXT top.relation;
  END LOOP;
END
$$;
CREATE FUNCTION lead_audit_internal.is_new_member(
  relation oid, watching lead_audit.watch, root oid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT root = ANY (array(SELECT lead_audit_internal.ancestors_of($1)))
         AND (lead_audit_internal.relation_row($1)).watch_id IS DISTINCT FROM ($2).watch_id
         AND NOT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a
                         WHERE a.is_row AND a.watch_id <> ($2).watch_id)
$$;
-- Begins to watch a new partition or child table of a watched table, during the command that
-- creates or attaches it. During other commands, the function ignores relations without audit
-- triggers, because a restore creates tables first and their triggers later.
CREATE FUNCTION lead_audit_internal.handle_attached(
  watching lead_audit.watch, root oid, affected oid[], effects text[]) RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh oid[] := array(SELECT f FROM unnest(affected) f
                       WHERE lead_audit_internal.is_new_member(f, watching, root));
  top record;
BEGIN
  IF fresh = '{}' THEN
    RETURN;
  END IF;
  -- Another session may be about to give one of them a child table.
  PERFORM lead_audit_internal.lock_members(f) FROM unnest(fresh) f;
  fresh := array(SELECT DISTINCT m FROM unnest(fresh) f
                 CROSS JOIN LATERAL lead_audit_internal.members_of(f) m
                 WHERE lead_audit_internal.is_new_member(m, watching, root));
  -- It may have been watched before, under another watch id.
  PERFORM lead_audit_internal.note_earlier_identity(watching.watch_id, k.watch_id)
  FROM (SELECT DISTINCT m.watch_id FROM unnest(fresh) f
        CROSS JOIN LATERAL lead_audit_internal.relation_row(f) m WHERE m.watch_id IS NOT NULL) k;
  PERFORM lead_audit_internal.free_trigger_names(f) FROM unnest(fresh) f;
  PERFORM lead_audit_internal.make_member_triggers(
    f, watching.watch_id, watching.soft_delete_column, false) FROM unnest(fresh) f;
  IF effects && '{joined,found}' THEN
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name
      FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c
      WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(f) p WHERE p = ANY (fresh))
    LOOP
      PERFORM lead_audit_internal.record_command(
        watching.watch_id, top.relation, top.table_schema, top.table_name);
      -- Only in the session of the command: the worker runs no code of a table's owner.
      IF watching.baseline_at IS NOT NULL AND 'joined' = ANY (effects) THEN
        PERFORM lead_audit_internal.write_baseline(
          m, watching.watch_id, coalesce(watching.soft_delete_column, ''))
        FROM lead_audit_internal.members_of(top.relation) m
        CROSS JOIN LATERAL lead_audit_internal.class_of(m) c
        WHERE c.kind = 'r' AND m = ANY (fresh);
      END IF;
      RETURN NEXT top.relation;
    END LOOP;
  ELSE
    -- A table that the command has created has no rows, with one exception: the command may have
    -- run code of an index, a constraint or a partition key that wrote some before the triggers
    -- existed.
    FOR top IN
      SELECT f AS relation, c.table_schema, c.table_name
      FROM unnest(fresh) f CROSS JOIN LATERAL lead_audit_internal.class_of(f) c
      WHERE c.kind = 'r'
    LOOP
      IF lead_audit_internal.write_baseline(
           top.relation, watching.watch_id, coalesce(watching.soft_delete_column, '')) > 0 THEN
        PERFORM lead_audit_internal.record_command(
          watching.watch_id, top.relation, top.table_schema, top.table_name);
        RETURN NEXT top.relation;
      END IF;
    END LOOP;
  END IF;
  PERFORM lead_audit_internal.note_relations(watching.watch_id, fresh);
END
$$;
REVOKE ALL ON FUNCTION
  lead_audit_internal.watch_detached(lead_audit.watch, lead_audit.watched_relation, oid[]),
  lead_audit_internal.handle_detached(lead_audit.watch, oid),
  lead_audit_internal.is_new_member(oid, lead_audit.watch, oid),
  lead_audit_internal.handle_attached(lead_audit.watch, oid, oid[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION
  lead_audit_internal.watch_detached(lead_audit.watch, lead_audit.watched_relation, oid[]) IS
  'Watches a relation that left a watched table under a new watch id.';
COMMENT ON FUNCTION lead_audit_internal.handle_detached(lead_audit.watch, oid) IS
  'Handles partitions and child tables that left a watched table. Returns those that it recorded '
  'as an entry.';
COMMENT ON FUNCTION lead_audit_internal.is_new_member(oid, lead_audit.watch, oid) IS
  'Whether a relation is below the root of a watched table and belongs to no watched table yet.';
COMMENT ON FUNCTION lead_audit_internal.handle_attached(lead_audit.watch, oid, oid[], text[]) IS
  'Handles partitions and child tables that joined a watched table. Returns those that it '
  'recorded as an entry.';

-- Writes an entry if a command changes columns or the key of a watched table, renames the table or
-- moves it to another schema. Such a DDL command changes values or names of a table, but causes no
-- row event. A parallel restore can create the primary key after the audit triggers. The creation
-- of a primary key by a restore has no entry, because the dumped table had the same key.
CREATE FUNCTION lead_audit_internal.handle_altered(
  watching lead_audit.watch, affected oid[], recorded oid[], rewritten boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed oid[] := array(
    SELECT m.relation
    FROM unnest(affected) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.class_of(r) c
    WHERE m.watch_id = watching.watch_id
      AND ((m.table_schema, m.table_name) <> (c.table_schema, c.table_name)
           OR m.shape IS NOT NULL
              AND (rewritten OR m.shape <> lead_audit_internal.shape_of(r)
                   OR m.key_attnums
                      <> (SELECT k.attnums FROM lead_audit_internal.primary_key_of(r) k)
                      AND NOT (m.is_restored AND m.key_attnums = '{}'))));
  known lead_audit.watched_relation;
  top record;
BEGIN
  FOR known IN
    SELECT m.* FROM unnest(changed) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    WHERE m.is_restored
  LOOP
    known.is_restored := false;
    PERFORM lead_audit_internal.put_relation(known);
  END LOOP;
  FOR top IN
    SELECT m.*, k.attnums, k.names, k.types
    FROM unnest(changed) r
    CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    CROSS JOIN LATERAL lead_audit_internal.primary_key_of(r) k
    WHERE NOT EXISTS (SELECT FROM lead_audit_internal.ancestors_of(r) p WHERE p = ANY (changed))
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    IF NOT top.relation = ANY (recorded) THEN
      PERFORM lead_audit_internal.record_command(
        top.watch_id, top.relation, top.table_schema, top.table_name);
    END IF;
    IF top.is_root AND top.key_attnums IS NOT NULL
       AND (top.attnums, top.names, top.types)
           IS DISTINCT FROM (top.key_attnums, top.key_names, top.key_types) THEN
      INSERT INTO lead_audit.former_key
        (watch_id, until_entry, column_names, column_types, same_columns)
      VALUES (top.watch_id, lead_audit_internal.last_entry(), top.key_names, top.key_types,
              top.attnums = top.key_attnums)
      ON CONFLICT DO NOTHING;
    END IF;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION
  lead_audit_internal.handle_altered(lead_audit.watch, oid[], oid[], boolean) FROM PUBLIC;
COMMENT ON FUNCTION
  lead_audit_internal.handle_altered(lead_audit.watch, oid[], oid[], boolean) IS
  'Records one entry for each watched table whose columns, key or name changed, unless the '
  'argument recorded already contains it.';

CREATE FUNCTION lead_audit_internal.is_guarded(relation oid) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit_internal.audit_triggers_of($1) a
                 WHERE lead_audit_internal.is_complete($1, a.watch_id))
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.is_guarded(oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.is_guarded(oid) IS
  'Whether the relation has all audit triggers with some watch id, and all are on.';

-- The DDL guard learns of a restored relation only when a command touches the relation. If this
-- command enables or disables triggers, it is part of the restore, because a dump with
-- --disable-triggers disables triggers while it loads the data.
CREATE FUNCTION lead_audit_internal.handle_trigger_state(
  watching lead_audit.watch, root oid, affected oid[], effects text[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  new_state text;
BEGIN
  IF watching.state = 'on' AND EXISTS (
       SELECT FROM unnest(affected) r
       CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
       CROSS JOIN LATERAL lead_audit_internal.class_of(r)
       WHERE m.watch_id = watching.watch_id AND m.is_complete
         AND NOT lead_audit_internal.is_complete(r, m.watch_id)) THEN
    new_state := 'disabled';
  ELSIF watching.state = 'disabled' AND 'enabled_again' = ANY (effects) AND NOT EXISTS (
          SELECT FROM lead_audit_internal.members_of(root) m
          WHERE NOT lead_audit_internal.is_guarded(m)) THEN
    new_state := 'on';
  ELSE
    RETURN false;
  END IF;
  PERFORM lead_audit_internal.note_state(watching, new_state, root);
  RETURN true;
END
$$;
CREATE FUNCTION lead_audit_internal.reconcile_table(
  watching lead_audit.watch, affected oid[], effects text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  root oid := (SELECT min(r::bigint)::oid
               FROM lead_audit_internal.roots_of(watching.watch_id) r
               CROSS JOIN LATERAL lead_audit_internal.class_of(r));
  recorded oid[] := '{}';
  known oid[];
  note lead_audit.watched_relation;
BEGIN
  IF watching.state IN ('on', 'disabled') AND root IS NOT NULL THEN
    IF effects && '{parted,found}' THEN
      recorded := recorded || array(SELECT lead_audit_internal.handle_detached(watching, root));
    END IF;
    IF effects && '{made,joined,found}' THEN
      recorded := recorded || array(
        SELECT lead_audit_internal.handle_attached(watching, root, affected, effects));
    END IF;
    IF lead_audit_internal.handle_trigger_state(watching, root, affected, effects) THEN
      recorded := recorded || affected;
    END IF;
    PERFORM lead_audit_internal.handle_altered(
      watching, affected, recorded,
      'rewritten' = ANY (effects) OR watching.state = 'on' AND 'disabled' = ANY (effects));
    PERFORM lead_audit_internal.handle_renamed_column(watching.watch_id, root);
  END IF;
  known := array(SELECT r FROM unnest(affected) r
                 WHERE (lead_audit_internal.relation_row(r)).watch_id = watching.watch_id);
  PERFORM lead_audit_internal.note_relations(watching.watch_id, affected);
  FOR note IN
    SELECT m.* FROM unnest(affected) r CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
    WHERE m.watch_id = watching.watch_id AND r <> ALL (known)
  LOOP
    note.is_restored := true;
    PERFORM lead_audit_internal.put_relation(note);
  END LOOP;
  IF lead_audit_internal.renew_triggers(watching.watch_id, affected)
     AND root IS NOT NULL AND 'found' = ANY (effects) AND recorded = '{}' THEN
    PERFORM lead_audit_internal.record_command(
      watching.watch_id, root, watching.table_schema, watching.table_name);
  END IF;
END
$$;
CREATE FUNCTION lead_audit_internal.reconcile_command(is_drop boolean, effects text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(is_drop));
  concerned oid[] := affected;
  watching lead_audit.watch;
BEGIN
  IF NOT is_drop AND EXISTS (SELECT FROM lead_audit_internal.relations_of_command(is_drop) c
                             WHERE c.command <> 'CREATE TRIGGER') THEN
    effects := effects || '{enabled_again}'::text[];
  END IF;
  IF effects && '{made,joined}' THEN
    concerned := affected || array(
      SELECT DISTINCT a FROM unnest(affected) f
      CROSS JOIN LATERAL lead_audit_internal.ancestors_of(f) a);
  END IF;
  FOR watching IN
    SELECT w.* FROM lead_audit_internal.identities_among(concerned) i
    CROSS JOIN LATERAL lead_audit_internal.watch_row(i) w
    WHERE w.state <> 'changing' ORDER BY w.enabled_at
  LOOP
    PERFORM lead_audit_internal.reconcile_table(watching, affected, effects);
  END LOOP;
  PERFORM lead_audit_internal.renew_triggers(i, affected)
  FROM lead_audit_internal.identities_among(affected) i
  WHERE (lead_audit_internal.watch_row(i)).watch_id IS NULL;
END
$$;
REVOKE ALL ON FUNCTION
  lead_audit_internal.handle_trigger_state(lead_audit.watch, oid, oid[], text[]),
  lead_audit_internal.reconcile_table(lead_audit.watch, oid[], text[]),
  lead_audit_internal.reconcile_command(boolean, text[]) FROM PUBLIC;
COMMENT ON FUNCTION
  lead_audit_internal.handle_trigger_state(lead_audit.watch, oid, oid[], text[]) IS
  'Handles audit triggers that were disabled, dropped or enabled again. Returns whether it '
  'changed the state of the watched table.';
COMMENT ON FUNCTION lead_audit_internal.reconcile_table(lead_audit.watch, oid[], text[]) IS
  'Compares relations of a watched table with their last known state, records the differences as '
  'entries and updates that state. effects are those of command_effects(), and two more: '
  'enabled_again (triggers that are on again end the state disabled) and found (the caller is '
  'check_watched(), so anything may have happened).';
COMMENT ON FUNCTION lead_audit_internal.reconcile_command(boolean, text[]) IS
  'Calls reconcile_table() for each watched table that the current command touches.';

CREATE FUNCTION lead_audit_internal.handle_renamed_column(identity uuid, root oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  watching lead_audit.watch := lead_audit_internal.watch_row(identity);
  renamed text := lead_audit_internal.column_name(
    root, (lead_audit_internal.relation_row(root)).soft_delete_attnum);
BEGIN
  IF watching.state = 'on' AND renamed <> watching.soft_delete_column THEN
    PERFORM lead_audit_internal.change_watch(
      identity, jsonb_build_object('soft_delete_column', renamed));
    PERFORM lead_audit_internal.make_triggers(root, identity, renamed);
  END IF;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.handle_renamed_column(uuid, oid) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.handle_renamed_column(uuid, oid) IS
  'Keeps a renamed soft-delete column as the soft-delete column.';

CREATE FUNCTION lead_audit_internal.command_effects() RETURNS text[]
  LANGUAGE c AS 'MODULE_PATHNAME', 'command_effects_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.command_effects() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.command_effects() IS
  'Returns the effects of the current command that only its text shows. made: it created a '
  'partition or child table. joined: a table became one. parted: a table no longer is one. '
  'disabled: it disabled triggers, maybe for a moment. rewritten: values of a column changed, or '
  'a foreign table may show other rows. '
  'written: it rewrote tables, and code that it called wrote to some.';

CREATE FUNCTION lead_audit_internal.after_ddl(made_partition boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  seen record;
BEGIN
  PERFORM lead_audit_internal.refuse_id_order();
  -- PostgreSQL loses rows that are written to a table during its rewrite. Entries would remain.
  IF 'written' = ANY (lead_audit_internal.command_effects()) THEN
    PERFORM lead_audit_internal.refuse_written(array(
      SELECT f FROM lead_audit_internal.affected_relations(false) f
      CROSS JOIN LATERAL lead_audit_internal.relation_row(f) m WHERE m.relation IS NOT NULL));
  END IF;
  FOR seen IN
    SELECT DISTINCT c.relation FROM lead_audit_internal.relations_of_command(false) c
    CROSS JOIN LATERAL lead_audit_internal.relation_row(c.relation) m
    CROSS JOIN LATERAL lead_audit_internal.watch_row(m.watch_id) w
    WHERE c.trigger_id IS NOT NULL AND w.state = 'on'
  LOOP
    PERFORM lead_audit_internal.warn_of_earlier_triggers(seen.relation);
  END LOOP;
  IF 'joined' = ANY (lead_audit_internal.command_effects()) THEN
    PERFORM lead_audit_internal.merge_attached();
  END IF;
  PERFORM lead_audit_internal.reconcile_command(false, lead_audit_internal.command_effects());
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.after_ddl(boolean) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.after_ddl(boolean) IS
  'Work of the DDL guard at the end of a command. The argument has no effect.';

CREATE FUNCTION lead_audit_internal.after_drop() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  watching lead_audit.watch;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE NOT d.is_temporary) THEN
    RETURN;
  END IF;
  FOR gone IN
    SELECT m.watch_id, m.relation, m.is_root, m.table_schema, m.table_name
    FROM pg_event_trigger_dropped_objects() d
    CROSS JOIN LATERAL lead_audit_internal.relation_row(d.objid) m
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND m.relation IS NOT NULL
    ORDER BY m.is_root DESC, m.table_name
  LOOP
    watching := lead_audit_internal.watch_row(gone.watch_id);
    IF gone.is_root AND watching.state IN ('on', 'disabled') THEN
      PERFORM lead_audit_internal.note_state(watching, 'dropped', gone.relation);
    ELSIF gone.is_root THEN
      PERFORM lead_audit_internal.change_watch(gone.watch_id, '{"state": "dropped"}');
    ELSIF watching.state IN ('on', 'disabled') THEN
      -- A partition or child table of a table that stays.
      PERFORM lead_audit_internal.record_command(
        gone.watch_id, gone.relation, gone.table_schema, gone.table_name);
    END IF;
    PERFORM lead_audit_internal.forget_relation(gone.relation);
  END LOOP;
  PERFORM lead_audit_internal.reconcile_command(
    true, CASE WHEN EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                            WHERE d.object_type = 'user mapping')
            THEN '{rewritten}'::text[] ELSE '{}' END);
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.after_drop() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.after_drop() IS
  'Work of the DDL guard after a command that drops objects: audit triggers, watched tables, '
  'partitions, columns and keys.';

-- ATTACH PARTITION copies the row trigger of the partitioned table to the partition, and fails if
-- the partition already has a trigger with the same name. So this function renames the partition's
-- existing row trigger first. The function does not drop the existing trigger, because ATTACH
-- PARTITION can run code of the owner, and the writes of this code need entries.
CREATE FUNCTION lead_audit_internal.before_attach(above oid, partition oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  identity uuid := (SELECT a.watch_id FROM lead_audit_internal.audit_triggers_of(above) a
                    WHERE a.is_row LIMIT 1);
  own regclass;
BEGIN
  FOR own IN
    SELECT m FROM lead_audit_internal.members_of(partition) m
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(m) a
    WHERE identity IS NOT NULL AND a.is_own AND a.watch_id <> identity
      AND a.trigger_name = '00_lead_audit_row'
  LOOP
    PERFORM lead_audit_internal.run_trigger_ddl(own, format(
      'ALTER TRIGGER "00_lead_audit_row" ON %s RENAME TO "00_lead_audit_row_before"', own));
  END LOOP;
END
$$;
CREATE FUNCTION lead_audit_internal.merge_attached() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  affected oid[] := array(SELECT lead_audit_internal.affected_relations(false));
  attached record;
BEGIN
  FOR attached IN
    SELECT former.watch_id AS former, present.watch_id AS identity, array_agg(f) AS relations
    FROM unnest(affected) f
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) former
    CROSS JOIN LATERAL lead_audit_internal.audit_triggers_of(f) present
    WHERE former.trigger_name = '00_lead_audit_row_before'
      AND present.trigger_name = '00_lead_audit_row'
    GROUP BY 1, 2
  LOOP
    PERFORM lead_audit_internal.merge_watch(
      attached.former, attached.identity, attached.relations);
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.before_attach(oid, oid),
  lead_audit_internal.merge_attached() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.before_attach(oid, oid) IS
  'Work of the DDL guard before a watched table becomes a partition of another watched table.';
COMMENT ON FUNCTION lead_audit_internal.merge_attached() IS
  'Merges watched tables that have become partitions of another watched table into it.';

-- Lists the faults of watched tables, for example an audit trigger that is off. A fault comes from
-- a command that the DDL guard did not see. A child table can be watched on its own, or its own
-- watching can be disabled. These two states of a child table are no faults of its parent.
CREATE VIEW lead_audit.watch_fault AS
WITH RECURSIVE known AS (
  SELECT m.watch_id, m.relation, m.is_root, m.is_complete, m.table_schema, m.table_name,
         c.oid IS NOT NULL AS is_there
  FROM lead_audit.watched_relation m
  JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state IN ('on', 'disabled')
  LEFT JOIN pg_catalog.pg_class c ON c.oid = m.relation
),
tree(watch_id, relation) AS (
  SELECT k.watch_id, k.relation FROM known k WHERE k.is_root AND k.is_there
  UNION
  SELECT t.watch_id, i.inhrelid FROM tree t
  JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
),
audit_trigger AS MATERIALIZED (SELECT * FROM lead_audit.audit_trigger),
triggers AS MATERIALIZED (
  SELECT a.relation, bool_and(a.is_on) FILTER (WHERE a.is_row) AS row_on,
         bool_and(a.is_on) FILTER (WHERE NOT a.is_row) AS truncate_on
  FROM audit_trigger a GROUP BY a.relation
)
SELECT k.watch_id, k.relation, 'dropped' AS fault FROM known k WHERE NOT k.is_there
UNION ALL
SELECT k.watch_id, k.relation, 'detached' FROM known k
WHERE k.is_there AND NOT k.is_root
  AND NOT EXISTS (SELECT FROM tree t WHERE (t.watch_id, t.relation) = (k.watch_id, k.relation))
UNION ALL
SELECT m.watch_id, m.relation,
       CASE WHEN k.relation IS NULL THEN 'not watched' ELSE 'trigger off' END
FROM tree m
JOIN lead_audit.watch w ON w.watch_id = m.watch_id AND w.state = 'on'
JOIN pg_catalog.pg_class c
  ON c.oid = m.relation AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
LEFT JOIN triggers t ON t.relation = m.relation
LEFT JOIN known k ON (k.watch_id, k.relation) = (m.watch_id, m.relation)
WHERE NOT (coalesce(t.row_on, false) AND coalesce(t.truncate_on, c.relkind = 'f'))
  AND NOT EXISTS (
    SELECT FROM lead_audit.watched_relation o
    JOIN lead_audit.watch v
      ON v.watch_id = o.watch_id AND v.state NOT IN ('off', 'dropped', 'merged')
    WHERE o.relation = m.relation AND o.watch_id <> m.watch_id)
UNION
SELECT a.watch_id, a.relation, 'trigger not always'
FROM audit_trigger a
JOIN lead_audit.watch w ON w.watch_id = a.watch_id AND w.state IN ('on', 'disabled')
WHERE a.is_on AND NOT a.is_current
  AND a.trigger_name IN ('00_lead_audit_row', '00_lead_audit_truncate');
REVOKE ALL ON lead_audit.watch_fault FROM PUBLIC;
COMMENT ON VIEW lead_audit.watch_fault IS
  'Internal: differences from the state in which the DDL guard leaves watched tables. Empty '
  'unless a command got past the guard.';
COMMENT ON COLUMN lead_audit.watch_fault.watch_id IS 'Watched table.';
COMMENT ON COLUMN lead_audit.watch_fault.relation IS
  'Oid of the table, partition or child table with the fault.';
COMMENT ON COLUMN lead_audit.watch_fault.fault IS
  'dropped, detached, not watched, trigger off or trigger not always, as returned by '
  'check_watched().';

CREATE FUNCTION lead_audit_internal.repair_watched() RETURNS TABLE (relation text, fault text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found record;
  known lead_audit.watched_relation;
  watching lead_audit.watch;
BEGIN
  FOR found IN
    SELECT f.watch_id, array_agg(f.relation) AS relations
    FROM lead_audit.watch_fault f GROUP BY f.watch_id
  LOOP
    RETURN QUERY
      SELECT CASE WHEN c.table_name IS NULL THEN format('%I.%I', m.table_schema, m.table_name)
               ELSE f.relation::regclass::text END,
             f.fault
      FROM lead_audit.watch_fault f
      LEFT JOIN LATERAL lead_audit_internal.class_of(f.relation) c ON true
      LEFT JOIN LATERAL lead_audit_internal.relation_row(f.relation) m ON true
      WHERE f.watch_id = found.watch_id;
    -- A table that cannot be locked does not prevent the repair of the others.
    BEGIN
      FOR known IN
        SELECT m.* FROM unnest(found.relations) r
        CROSS JOIN LATERAL lead_audit_internal.relation_row(r) m
        WHERE m.watch_id = found.watch_id
          AND NOT EXISTS (SELECT FROM lead_audit_internal.class_of(r))
      LOOP
        watching := lead_audit_internal.watch_row(found.watch_id);
        IF known.is_root THEN
          PERFORM lead_audit_internal.note_state(watching, 'dropped', known.relation);
        ELSE
          PERFORM lead_audit_internal.record_command(
            found.watch_id, known.relation, known.table_schema, known.table_name);
        END IF;
        PERFORM lead_audit_internal.forget_relation(known.relation);
      END LOOP;
      watching := lead_audit_internal.watch_row(found.watch_id);
      PERFORM lead_audit_internal.reconcile_table(
        watching,
        array(SELECT m FROM lead_audit_internal.roots_of(found.watch_id) r
              CROSS JOIN LATERAL lead_audit_internal.members_of(r) m
              UNION
              SELECT r FROM unnest(found.relations) r
              CROSS JOIN LATERAL lead_audit_internal.class_of(r)),
        '{found}');
      -- Triggers that a restore left disabled have never been on.
      watching := lead_audit_internal.watch_row(found.watch_id);
      IF watching.state = 'on' AND EXISTS (SELECT FROM lead_audit.watch_fault f
                                           WHERE f.watch_id = found.watch_id
                                             AND f.fault <> 'trigger not always') THEN
        PERFORM lead_audit_internal.note_state(watching, 'disabled', r)
        FROM lead_audit_internal.roots_of(found.watch_id) r;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      RETURN QUERY SELECT format('%I.%I', w.table_schema, w.table_name), 'locked'
      FROM lead_audit_internal.watch_row(found.watch_id) w;
    WHEN object_not_in_prerequisite_state THEN
      -- The worker refuses code of a table's owner, which PostgreSQL would call for the repair.
      RETURN QUERY SELECT format('%I.%I', w.table_schema, w.table_name), 'not repaired'
      FROM lead_audit_internal.watch_row(found.watch_id) w;
    END;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION lead_audit_internal.repair_watched() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.repair_watched() IS 'Does the work of check_watched().';

CREATE FUNCTION lead_audit.check_watched() RETURNS TABLE (relation text, fault text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'check_watched_wrapper';
REVOKE ALL ON FUNCTION lead_audit.check_watched() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.check_watched() IS
  'Compares each watched table with the catalog, repairs and records what differs, and returns '
  'it. Faults: not watched (a partition or child table had no audit triggers; now it has), '
  'detached (it now has its own watch id), dropped, trigger off (the state of the table is now '
  'disabled), trigger not always (it did not fire for logical replication; now it does), locked '
  '(a session holds a lock: the other faults of this watched table are not repaired yet), not '
  'repaired (found by the worker, which does not run code of the owner of a table: call this '
  'function). Returns no row if there is no fault. The background worker does the same after '
  'DDL and every minute.';

CREATE FUNCTION lead_audit_internal.guard_ddl() RETURNS event_trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'lead_audit_guard_ddl';
REVOKE ALL ON FUNCTION lead_audit_internal.guard_ddl() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.guard_ddl() IS
  'Event trigger: calls refuse_ddl(), after_ddl(), after_drop() and before_attach() with the '
  'rights of the extension''s owner.';

CREATE EVENT TRIGGER lead_audit_ddl ON ddl_command_end
  WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER INDEX',
               'CREATE SCHEMA', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER SEQUENCE',
               'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA',
               'ALTER SERVER', 'ALTER FOREIGN DATA WRAPPER', 'CREATE USER MAPPING',
               'ALTER USER MAPPING',
               'CREATE VIEW', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW')
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();
ALTER EVENT TRIGGER lead_audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_ddl IS
  'Notices audit triggers that are disabled or replaced, watched tables that are renamed or '
  'altered, partitions that join or leave, and changes of what a foreign table shows.';
CREATE EVENT TRIGGER lead_audit_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE')
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();
ALTER EVENT TRIGGER lead_audit_start ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_start IS
  'Prepares a watched table that is about to become a partition of another.';
CREATE EVENT TRIGGER lead_audit_drop ON sql_drop
  EXECUTE FUNCTION lead_audit_internal.guard_ddl();
ALTER EVENT TRIGGER lead_audit_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER lead_audit_drop IS
  'Notices audit triggers and watched tables that are dropped.';
