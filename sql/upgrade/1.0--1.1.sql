-- The hand-written part of the update from version 1.0 to 1.1. This part contains the statements
-- that scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Raises an error if this session has loaded an earlier library. At this point of an update, the
-- catalog already contains the new version of the extension.
SELECT lead_audit.require_library();

-- Without its event triggers, the DDL guard is off while the update replaces its functions. The
-- generated part of the update creates the event triggers again.
DROP EVENT TRIGGER lead_audit_ddl;
DROP EVENT TRIGGER lead_audit_start;
DROP EVENT TRIGGER lead_audit_drop;

ALTER TABLE lead_audit.checkpoint ADD COLUMN log_id uuid;
ALTER TABLE lead_audit.tree ADD COLUMN origin text, ADD COLUMN verifier_key text;

-- Drops functions of version 1.0 whose arguments, results or names are different in version 1.1.
DROP FUNCTION lead_audit.merge_watch(uuid, uuid);
DROP FUNCTION lead_audit.follow_joining(lead_audit.watch, oid, boolean);
DROP FUNCTION lead_audit.follow_soft_delete_column(uuid);
DROP FUNCTION lead_audit.follow_parting(lead_audit.watch, oid);
DROP FUNCTION lead_audit.follow_reshaping(lead_audit.watch, oid[], oid[], boolean);
DROP FUNCTION lead_audit.follow_ddl(boolean, text[]);
DROP FUNCTION lead_audit.primary_key_of(oid);

-- Version 1.0 had its internal functions in the schema lead_audit. Version 1.1 has them in the
-- schema lead_audit_internal.
CREATE SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_change_by_others() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_change() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.guard_tree() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.write_baseline(regclass, uuid, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.write_ddl(uuid, oid, text, text, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.is_audit_trigger_name(name) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.is_complete(oid, uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.members_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.ancestors_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.shape_of(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_of(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watched_above(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_triggers(regclass, uuid, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_member_triggers(oid, uuid, text, boolean)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_trigger(regclass, text, text, text, text, text[], uuid)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.make_truncate_trigger(regclass, uuid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.drop_triggers(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_relations(uuid, oid[]) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.last_entry() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.warn_of_earlier_triggers(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.soft_delete_column_of(regclass, name) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.require_library() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_table(regclass, name, boolean, boolean)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.may_disable(oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.relations_of_command(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.affected_relations(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_ddl(oid, boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.refuse_id_order() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.note_state(lead_audit.watch, text, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.command_effects() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_ddl(boolean) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.after_drop() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.before_attach(oid, oid) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.guard_ddl() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.own_queue() SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_columns(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, smallint[], text[], text[])
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.key_of(regclass, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.value_as(regclass, text, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.identities_of(regclass) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.former_spellings(regclass, text, uuid, bigint)
  SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.entries_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.has_values(jsonb, jsonb) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.summary_of(regclass, text) SET SCHEMA lead_audit_internal;
ALTER FUNCTION lead_audit.watch_leads() SET SCHEMA lead_audit_internal;

-- GENERATED

-- In version 1.1, the digest of a table's columns also covers the attributes of composite types.
-- This statement stores the new digests, because with the old digest of a table, the next DDL
-- command on the table would be recorded as a change of columns.
SELECT lead_audit_internal.note_relations(w.watch_id, NULL)
FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');

-- Sets the audit triggers of version 1.0 to ENABLE ALWAYS. In version 1.0, the state of these
-- triggers is plain ENABLE. A change of a table's triggers locks the table against writes until
-- the update ends. If a table is in use, its triggers keep the state plain ENABLE until
-- check_watched() changes the state. The lock timeout is shorter than deadlock_timeout, so that
-- PostgreSQL does not end a writer's transaction by a deadlock.
SET LOCAL lock_timeout = '500ms';
DO $$
DECLARE
  watching lead_audit.watch;
BEGIN
  FOR watching IN SELECT * FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled') LOOP
    FOR attempt IN 1..3 LOOP
      BEGIN
        PERFORM lead_audit_internal.renew_triggers(watching.watch_id, array(
          SELECT DISTINCT a.relation FROM lead_audit.audit_trigger a
          WHERE a.watch_id = watching.watch_id));
        EXIT;
      EXCEPTION WHEN lock_not_available THEN
        IF attempt = 3 THEN
          RAISE WARNING 'the audit triggers of table %.% are still those of version 1.0',
            quote_ident(watching.table_schema), quote_ident(watching.table_name)
            USING DETAIL = 'The table is in use.',
                  HINT = 'The worker changes them later. Without it, call '
                         'lead_audit.check_watched().';
        END IF;
      END;
    END LOOP;
  END LOOP;
END
$$;
