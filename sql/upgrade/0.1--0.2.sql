-- What leads from 0.1 to 0.2 and cannot be worked out from sql/*.sql: see scripts/upgrade_script.py.

-- GENERATED
