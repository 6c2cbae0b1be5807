-- From 0.1 to 0.2. Written by scripts/upgrade_script.py from sql/upgrade/ and sql/*.sql: do not edit.
\echo Run "ALTER EXTENSION lead_audit UPDATE" instead of this file. \quit

-- What leads from 0.1 to 0.2 and cannot be worked out from sql/*.sql: see scripts/upgrade_script.py.
