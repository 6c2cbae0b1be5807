"""What a statement's text tells: whether it gets a transaction of its own in AUTOCOMMIT."""

from __future__ import annotations

import pytest

from lead_audit.statements import copies, may_be_several, may_commit, wants_context

WRITING = """
    INSERT INTO leads (id) VALUES ('1')
    /* so */ -- it\n update leads SET source = 'x'
    WITH gone AS (DELETE FROM leads RETURNING *) SELECT * FROM gone
    (WITH x AS (SELECT 1) SELECT * FROM x)
    ( (SELECT touch()) UNION (SELECT 2) )
    ( /* so */ ( VALUES (touch()) ) )
    MERGE INTO leads USING x ON true WHEN MATCHED THEN DELETE
    TRUNCATE leads
    COPY leads FROM STDIN
    EXECUTE prepared(1)
    EXPLAIN ANALYZE UPDATE leads SET source = 'x'
    EXPLAIN (COSTS off, ANALYZE) DELETE FROM leads
    SELECT touch()
    SELECT count(*), app.touch(id) FROM leads
    SELECT "Touch"(1)
    VALUES (touch())
    ALTER TABLE leads DROP COLUMN source
    drop  table leads
    DROP SCHEMA crm CASCADE
    DROP TYPE mood CASCADE
    DROP OWNED BY app
""".strip().split("\n    ")
READING = [
    "SELECT * FROM leads WHERE id IN ('1', '2')",
    "SELECT count(*), max(lower(id)) FROM leads",
    "EXPLAIN UPDATE leads SET source = 'x'",
    "VACUUM leads",
    "CREATE INDEX CONCURRENTLY i ON leads (email)",
    "ALTER TABLE parent DETACH PARTITION part CONCURRENTLY",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "DROP DATABASE other",
    "CALL touch()",
    "DO $$ BEGIN UPDATE leads SET source = 'x'; END $$",
]


@pytest.mark.parametrize("statement", WRITING)
def test_what_can_write(statement: str) -> None:
    assert wants_context(statement) and not may_commit(statement)


@pytest.mark.parametrize("statement", READING)
def test_what_runs_as_it_is(statement: str) -> None:
    assert not wants_context(statement)
    assert may_commit(statement) is statement.startswith(("CALL", "DO"))


def test_what_can_be_sent_together_with_another() -> None:
    assert copies("/* so */ copy leads FROM STDIN") and not copies("INSERT INTO copy VALUES (1)")
    assert may_be_several("DELETE FROM a; DELETE FROM b") and may_be_several("SELECT f(';')")
    assert not may_be_several("DELETE FROM a ;\n")
