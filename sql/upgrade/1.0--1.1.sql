-- The hand-written part of the update from 1.0 to 1.1: what scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Refuses the update where this session has loaded an earlier library: PostgreSQL has set the new version already.
SELECT lead_audit.require_library();
ALTER TABLE lead_audit.checkpoint ADD COLUMN log_id uuid;
ALTER TABLE lead_audit.tree ADD COLUMN origin text, ADD COLUMN verifier_key text;

-- Arguments or result are others now.
DROP FUNCTION lead_audit.merge_watch(uuid, uuid);
DROP FUNCTION lead_audit.follow_joining(lead_audit.watch, oid, boolean);
DROP FUNCTION lead_audit.follow_soft_delete_column(uuid);
DROP FUNCTION lead_audit.primary_key_of(oid);

-- GENERATED

-- The digest of columns covers the attributes of composite types now: without this, the next command on each table were an entry.
SELECT lead_audit.note_relations(w.watch_id, NULL) FROM lead_audit.watch w WHERE w.state IN ('on', 'disabled');
