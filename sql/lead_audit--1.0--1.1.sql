-- From 1.0 to 1.1. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- The hand-written part of the update from 1.0 to 1.1: what scripts/upgrade_script.py cannot derive from sql/*.sql.

-- Refuses the update where this session has loaded an earlier library: PostgreSQL has set the new version already.
SELECT lead_audit.require_library();
