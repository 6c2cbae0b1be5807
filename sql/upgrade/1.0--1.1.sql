-- The hand-written part of the update from 1.0 to 1.1: what scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Refuses the update where this session has loaded an earlier library: PostgreSQL has set the new version already.
SELECT lead_audit.require_library();

-- GENERATED
