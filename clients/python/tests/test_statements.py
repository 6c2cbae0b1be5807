"""Tests of the analysis of SQL: how a statement affects transactions, and whether it can write."""

from __future__ import annotations

import time
from typing import Optional

import pytest

from lead_audit.set_config import set_config_text
from lead_audit.statements import Access, Kind, analyze

WRITING = (
    """
    INSERT INTO leads (id) VALUES ('1')
    /* so */ -- it\n update leads SET source = 'x'
    /* a /* nested */ comment */ update leads SET source = 'x'
    WITH gone AS (DELETE FROM leads RETURNING *) SELECT * FROM gone
    MERGE INTO leads USING x ON true WHEN MATCHED THEN DELETE
    TRUNCATE leads
    COPY leads FROM STDIN
    EXECUTE prepared(1)
    EXPLAIN ANALYZE UPDATE leads SET source = 'x'
    EXPLAIN (COSTS off, ANALYZE) DELETE FROM leads
    ALTER TABLE leads DROP COLUMN source
    drop  table leads
    DROP SCHEMA crm CASCADE
    DROP TYPE mood CASCADE
    DROP OWNED BY app
    DROP TRIGGER t ON leads
    DROP FUNCTION f CASCADE
    ALTER TRIGGER t ON leads RENAME TO u
    REFRESH MATERIALIZED VIEW m
    CREATE TABLE copied AS SELECT touch()
    CREATE MATERIALIZED VIEW copied AS SELECT touch()
    SET CONSTRAINTS ALL IMMEDIATE; UPDATE leads SET source = 'x'
""".replace("\\n", "\n")
    .strip()
    .split("\n    ")
)
READING = [
    "SELECT * FROM leads WHERE id IN ('1', '2')",
    "SELECT count(*), max(lower(id)) FROM leads",
    "EXPLAIN UPDATE leads SET source = 'x'",
    "VACUUM leads",
    "CREATE INDEX CONCURRENTLY i ON leads (email)",
    (
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql"
        " BEGIN ATOMIC INSERT INTO leads (id) VALUES ('1'); DELETE FROM leads; END"
    ),
    (
        "CREATE RULE r AS ON INSERT TO v DO INSTEAD (INSERT INTO a VALUES (1);"
        " INSERT INTO b VALUES (1))"
    ),
    "ALTER TABLE parent DETACH PARTITION part CONCURRENTLY",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "DROP DATABASE other",
    "PREPARE p AS INSERT INTO leads (id) VALUES ('1')",
    "",
    " ; -- nothing",
]


@pytest.mark.parametrize("statement", WRITING)
def test_what_writes(statement: str) -> None:
    assert analyze(statement).may_write and analyze(statement).writes


@pytest.mark.parametrize("statement", READING)
def test_what_does_not(statement: str) -> None:
    found = analyze(statement)
    assert (
        not found.may_write
        and not found.writes
        and not found.several
        and len(found.statements) == 1
    )


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("SELECT touch()", {"touch"}),
        ("SELECT touch /* so */ -- it\n (1)", {"touch"}),
        ('SELECT "Touch"(1), "select"(2)', {"Touch", "select"}),
        ("VALUES (touch())", {"touch"}),
        ("( (SELECT touch()) UNION (SELECT 2) )", {"touch"}),
        ("( /* so */ ( VALUES (touch()) ) )", {"touch"}),
        (
            (
                "SELECT pg_catalog.count(*) FROM crm.leads l,"
                " other JOIN (third CROSS JOIN fourth) ON true"
            ),
            {"count", "leads", "other", "third", "fourth"},
        ),
        ("SELECT a, b FROM ONLY x WHERE c IN (SELECT d FROM y, LATERAL f(x))", {"x", "y", "f"}),
        ("TABLE v", {"v"}),
        ("(TABLE v)", {"v"}),
        ("WITH x AS (SELECT 1) SELECT * FROM v", {"v"}),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT touch() FROM v", {"touch", "v"}),
        ("SELECT touch() INTO copied", {"touch"}),
        ("EXPLAIN ANALYZE SELECT touch()", {"touch"}),
        ("SELECT * FROM v WHERE a = %(a)s AND b IN (%(b)s) AND c = $1::text", {"v"}),
    ],
)
def test_what_writes_if_what_it_calls_does(statement: str, names: set[str]) -> None:
    (found,) = analyze(statement).statements
    assert (
        found.access is Access.READS
        and names == found.calls | found.relations
        and not found.calls_own
    )


def test_a_function_with_a_schema_is_not_postgresqls() -> None:
    assert (
        analyze("SELECT public.count('x')").may_write
        and analyze('SELECT "public" . "count" (1)').may_write
    )
    assert not analyze("SELECT pg_catalog.count('x')").may_write


@pytest.mark.parametrize(
    "statement", ["CALL touch()", "DO $$ BEGIN UPDATE leads SET source = 'x'; COMMIT; END $$"]
)
def test_what_may_commit(statement: str) -> None:
    assert analyze(statement).only.access is Access.MAY_COMMIT and not analyze(statement).several


@pytest.mark.parametrize(
    ("statement", "kind", "savepoint"),
    [
        ("SAVEPOINT a", Kind.SAVEPOINT, "a"),
        ('savepoint "A ""b"""', Kind.SAVEPOINT, 'A "b"'),
        ("SAVEPOINT \u00c9A", Kind.SAVEPOINT, "\u00c9a"),
        ("SAVEPOINT " + "a" * 70, Kind.SAVEPOINT, "a" * 63),
        ('SAVEPOINT U&"a"', Kind.SAVEPOINT, None),
        ("/* so */ ROLLBACK WORK TO Savepoint A;", Kind.ROLLBACK_TO, "a"),
        ("ROLLBACK TRANSACTION TO a", Kind.ROLLBACK_TO, "a"),
        ("RELEASE SAVEPOINT a", Kind.RELEASE, "a"),
        ("RELEASE savepoint", Kind.RELEASE, "savepoint"),
        ("ROLLBACK AND CHAIN", Kind.ENDS, None),
        ("COMMIT", Kind.ENDS, None),
        ("PREPARE TRANSACTION 'x'", Kind.ENDS, None),
        ("RESET ALL", Kind.ENDS, None),
        ("RESET lead_audit.user_id", Kind.ENDS, None),
        ("DISCARD ALL", Kind.ENDS, None),
        ("BEGIN", Kind.APART, None),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Kind.APART, None),
        ("LOCK leads", Kind.APART, None),
        ("SET CONSTRAINTS ALL IMMEDIATE", Kind.ORDINARY, None),  # SET CONSTRAINTS can run triggers
        ("INSERT INTO leads (id) VALUES ('1')", Kind.ORDINARY, None),
    ],
)
def test_transactions(statement: str, kind: Kind, savepoint: Optional[str]) -> None:
    (found,) = analyze(statement).statements
    assert (found.kind, found.savepoint) == (kind, savepoint)


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("SET LOCAL statement_timeout = '5s'; ^UPDATE leads SET source = 'x'", 2),
        ("^INSERT INTO leads (id) VALUES ('a;b'); DELETE FROM leads;", 2),
        (
            (
                "BEGIN; ^INSERT INTO leads (id) VALUES ('1'); DELETE FROM leads; COMMIT;"
                " ^DELETE FROM leads"
            ),
            5,
        ),
        ("RELEASE a; ^DELETE FROM leads", 2),
        ("^DELETE FROM leads; ROLLBACK TO a; SELECT 1; ^DELETE FROM leads", 4),
        ("SELECT 1; SHOW all", 2),
        (
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END;"
                " SELECT 2; END; ^DELETE FROM leads"
            ),
            2,
        ),
        ("SELECT $a$;$$;$a$, 1 AS a$b$; ^DELETE FROM leads", 2),
        ("SELECT E'\\';', U&';', B'1'; ^DELETE FROM leads", 2),
    ],
)
def test_several(statement: str, parts: int) -> None:
    """The character ^ marks the positions at which the client must set the context."""
    text = statement.replace("^", "")
    found = analyze(text)
    assert found.several and len(found.statements) == parts
    expected = [
        place - number
        for number, place in enumerate(
            i for i, character in enumerate(statement) if character == "^"
        )
    ]
    assert list(found.places()) == expected


def test_what_a_setting_of_the_server_decides_is_taken_for_several() -> None:
    """If standard_conforming_strings is off, a quote after a backslash does not end the literal."""
    found = analyze("SELECT 'a\\'; DELETE FROM leads; --'")
    assert found.several and found.may_write and found.changes_schema


ADVERSARIAL = {
    "comments": "/* x */" * 50_000 + "SELECT 1",
    "comments and blanks": " /**/ --\n" * 50_000 + "SELECT 1",
    "open comments": "/*" * 200_000,
    "comment signs": "/*/" * 100_000,
    "a long literal": "SELECT '" + "a(" * 200_000 + "'",
    "quotes": "'" * 300_001,
    "names": '"' * 300_001,
    "escapes": "E'" + "\\'" * 200_000,
    "dollars": "$" * 300_000,
    "tags": "$a" * 200_000,
    "other tags": "".join(f"$a{i}" for i in range(50_000)),
    "open parentheses": "(" * 200_000,
    "calls": "SELECT " + "f(" * 100_000,
    "a long word": "SELECT " + "a" * 500_000,
    "many words": "a " * 200_000,
    "numbers": "1." * 200_000,
    "statements": "a;" * 100_000,
    "relations": "SELECT a FROM " + ", (" * 100_000,
    "analyze": "EXPLAIN " + "ANALYZ " * 100_000,
    "savepoint": "SAVEPOINT " + '"' * 100_001,
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_time_is_linear(name: str) -> None:
    """Each text has about 400 kB. A scanner whose time is not linear would take minutes."""
    text = ADVERSARIAL[name]
    start = time.process_time()
    analyze(text)
    assert time.process_time() - start < 10
    start = time.process_time()
    for _ in range(100):
        analyze(text[:15_000])
    assert time.process_time() - start < 1  # a second call would find the cached result


def test_the_time_to_insert_the_context_is_linear() -> None:
    """With an algorithm of quadratic time, this test would take minutes."""
    from lead_audit.autocommit import _Inserted
    from lead_audit.context import AuditContext

    block = "BEGIN; INSERT INTO leads (id) VALUES ('1'); COMMIT; "
    cursor = _Inserted(None, AuditContext("alice").settings(), is_set=False, is_empty=False)
    start = time.process_time()
    text = cursor._text(block * 40_000)
    assert time.process_time() - start < 15
    assert text.count("set_config('lead_audit.user_id'") == 40_000
    setting = set_config_text(AuditContext("alice").settings())
    assert text.startswith(f"BEGIN; {setting}; INSERT INTO leads") and text.endswith("COMMIT; ")
