-- What leads from 0.2 to 1.0 and cannot be worked out from sql/*.sql: nothing. See scripts/upgrade_script.py.

-- GENERATED
