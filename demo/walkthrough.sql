-- `make demo` runs this script. In the script, an application writes leads, and the audit trail
-- records who changed each row. Verification finds entries that were tampered with. psql runs the
-- script as the superuser `postgres`, in an empty database that the role `lead_app` owns. psql
-- shows each statement before its result.
\set ECHO none
\pset footer off
\pset null '-'
\pset format wrapped
\pset columns 105

\echo
\echo '---- 1. An application and its table ------------------------------------------------------'
\echo
\echo 'The role lead_app owns the table "leads" (demo/leads.sql) with 20 rows. It is no superuser.'
\connect - lead_app
\set n 20
\i leads.sql
\set QUIET off

\echo
\echo '---- 2. A superuser creates the extension -------------------------------------------------'
\echo
\echo 'CREATE EXTENSION finds the table and watches it. The baseline writes one entry for each'
\echo 'existing row. lead_app gets no rights on the trail.'
\echo
\connect - postgres
\set ECHO queries
CREATE EXTENSION lead_audit;
SELECT lead_audit.enable('leads', baseline => true) AS watch_id;
SELECT relation, row_trigger_on, truncate_trigger_on, state, soft_delete_column
FROM lead_audit.watched;
SELECT operation, count(*) FROM lead_audit.log GROUP BY operation;
\set ECHO none

\echo
\echo '---- 3. The application works -------------------------------------------------------------'
\echo
\echo 'The application states its user. Maria enters two leads.'
\echo
\connect - lead_app
\set QUIET on
\set ECHO queries
SET application_name = 'lead-manager';
SET lead_audit.user_id = 'maria';
SET lead_audit.user_ip = '203.0.113.7';
SET lead_audit.user_agent = 'Firefox/140';
SET lead_audit.request_id = 'req-1001';
\set QUIET off
INSERT INTO leads (id, email, company_name, contact_name, source, created_by)
VALUES ('acme',   'jo@acme.example',    'Acme Corporation', 'Jo Kim',   'web', 'maria'),
       ('globex', 'sam@globex.example', 'Globex GmbH',      'Sam Diaz', 'fair', 'maria');
\set ECHO none

\echo
\echo 'Tom corrects one of them. SET LOCAL lasts until the end of his transaction.'
\echo
\set ECHO queries
\set QUIET on
BEGIN;
SET LOCAL lead_audit.user_id = 'tom';
SET LOCAL lead_audit.user_ip = '198.51.100.23';
SET LOCAL lead_audit.request_id = 'req-1002';
\set QUIET off
UPDATE leads SET contact_name = 'Jo Kim-Park', enrichment_status = 'COMPLETED', updated_by = 'tom'
WHERE id = 'acme';
COMMIT;
\set ECHO none

\echo
\echo 'Maria makes a soft delete, an update of several rows, and a delete.'
\echo
\set ECHO queries
\set QUIET on
SET lead_audit.request_id = 'req-1003';
\set QUIET off
UPDATE leads SET is_deleted = true, deleted_at = now(), deleted_by = 'maria' WHERE id = 'acme';
\set QUIET on
SET lead_audit.request_id = 'req-1004';
\set QUIET off
UPDATE leads SET source = 'yelp-2024' WHERE source = 'yelp' AND is_manual;
\set QUIET on
SET lead_audit.request_id = 'req-1005';
\set QUIET off
DELETE FROM leads WHERE id = 'globex';
\set ECHO none

\echo
\echo 'She enters a lead that exists already. The statement fails and is rolled back:'
\echo
\set ECHO queries
\set QUIET on
SET lead_audit.request_id = 'req-1006';
\set QUIET off
\set ON_ERROR_STOP off
INSERT INTO leads (id, email, company_name, created_by)
VALUES ('acme', 'sales@acme.example', 'ACME', 'maria');
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo 'The application can neither read nor change the trail:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT count(*) FROM lead_audit.log;
SELECT lead_audit.disable('leads');
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo '---- 4. Who changed what ------------------------------------------------------------------'
\echo
\echo 'The application states user_id and user_ip. The database itself records db_session_user.'
\echo
\connect - postgres
\set ECHO queries
SELECT id, right(row_key ->> 'id', 6) AS lead, operation, soft_delete, user_id, user_ip,
       request_id, db_session_user
FROM lead_audit.log WHERE operation <> 'SNAPSHOT' AND outcome = 'ok' ORDER BY id;
\set ECHO none

\echo
\echo 'The failed statement has an entry, too. The transaction of the application could not keep'
\echo 'it, so a background worker wrote it. This needs the library preloaded'
\echo '(shared_preload_libraries).'
\echo
-- The worker writes the entry a few milliseconds after the statement fails, so the script waits
-- until the entry exists.
\set QUIET on
DO $$ BEGIN
  FOR i IN 1..200 LOOP
    EXIT WHEN (SELECT queued = written FROM lead_audit.stats);
    PERFORM pg_sleep(0.05);
  END LOOP;
END $$;
\set QUIET off
\set ECHO queries
SELECT operation, error_code, error_message, row_key, details, user_id, request_id
FROM lead_audit.log WHERE outcome = 'failed';
SELECT part, state FROM lead_audit.status();
\set ECHO none

\echo
\echo 'The history of one lead:'
\echo
\set ECHO queries
SELECT id, occurred_at::timestamp(3), operation, outcome, soft_delete, user_id,
       new_values ->> 'contact_name' AS contact_name
FROM lead_audit.history('leads', 'acme');
\set ECHO none

\echo
\echo 'The changes of this lead, value by value:'
\echo
\set ECHO queries
SELECT h.id, h.user_id, d.key AS "column", d.value ->> 'old' AS old, d.value ->> 'new' AS new
FROM lead_audit.history('leads', 'acme') h, jsonb_each(h.diff) d ORDER BY h.id, d.key;
SELECT total, created, updated, deleted, failed, distinct_users, verified
FROM lead_audit.summary('leads', 'acme');
\set ECHO none

\echo
\echo '---- 5. Was the trail changed? ------------------------------------------------------------'
\echo
\echo 'Every entry has a checksum over all its columns. verify() returns one row for each fault.'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
\set ECHO none

\echo
\echo 'No row: nothing was changed. Now a DBA wants to blame Maria for the change of the name. A'
\echo 'plain UPDATE fails, even for a superuser:'
\echo
SELECT id AS victim FROM lead_audit.history('leads', 'acme') WHERE user_id = 'tom' \gset
\set ECHO queries
\set ON_ERROR_STOP off
UPDATE lead_audit.entry SET user_id = 'maria' WHERE id = :victim;
\set ON_ERROR_STOP on
\set ECHO none

\echo
\echo 'But a superuser can first disable the trigger that protects the entries:'
\echo
\set ECHO queries
ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL;
UPDATE lead_audit.entry SET user_id = 'maria' WHERE id = :victim;
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
SELECT id, operation, user_id, user_ip, request_id
FROM lead_audit.history('leads', 'acme') WHERE id = :victim;
\set ECHO none

\echo
\echo 'The entry now blames Maria. Its checksum shows the change:'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
SELECT lead_audit.verify_entry(:victim);
SELECT total, updated, distinct_users, verified FROM lead_audit.summary('leads', 'acme');
\set ECHO none

\echo
\echo '---- 6. A DBA who can compute checksums ---------------------------------------------------'
\echo
\echo 'A DBA can also replace the checksum. Therefore each entry is sealed: it becomes a leaf of'
\echo 'one Merkle tree, and a checkpoint of the tree leaves the database. The worker seals every'
\echo 'second; this call seals at once. The checkpoint has three lines: origin, number of entries,'
\echo 'root. An auditor who keeps it elsewhere does not need to trust the database. Checkpoints'
\echo 'can be signed (lead_audit.signing_key_file).'
\echo
\set ECHO queries
SELECT lead_audit.seal() AS tree_size;
SELECT lead_audit.latest_checkpoint() AS checkpoint;
\set ECHO none

\echo
\echo 'The DBA hides that Maria deleted the lead, and this time replaces the checksum, too:'
\echo
SELECT id AS second_victim
FROM lead_audit.history('leads', 'acme') WHERE soft_delete = 'deleted' \gset
\set ECHO queries
ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL;
UPDATE lead_audit.entry SET user_id = 'tom' WHERE id = :second_victim;
UPDATE lead_audit.entry e SET checksum = (
  SELECT sha256(convert_to('{' || string_agg(to_json(c.key)::text || ':' || CASE
           WHEN c.key = 'occurred_at' THEN
             to_json(to_char(
               e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
           WHEN c.key IN ('id', 'txid', 'relation') THEN c.value #>> '{}'
           ELSE c.value::text END, ',' ORDER BY c.key COLLATE "C") || '}', 'UTF8'))
  FROM json_each(row_to_json(e)) c WHERE c.key <> 'checksum' AND c.value::text <> 'null')
WHERE id = :second_victim;
ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only;
SELECT id, operation, soft_delete, user_id
FROM lead_audit.history('leads', 'acme') WHERE id = :second_victim;
\set ECHO none

\echo
\echo 'The entry and its checksum agree. The tree shows the change:'
\echo
\set ECHO queries
SELECT * FROM lead_audit.verify();
\set ECHO none

\echo
\echo 'A change of the tree would change its root, and the auditor has the root.'
\echo
