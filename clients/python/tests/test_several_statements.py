"""Tests of query strings with several statements: each writing statement must have its context."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine

from lead_audit.sqlalchemy import attach

from .cluster import Database
from .drivers import ASYNC, SQLALCHEMY_14, SYNC
from .test_sqlalchemy import ALICE, BOB, insert

ROW = "INSERT INTO leads (id) SELECT gen_random_uuid()"


@pytest.fixture(params=SYNC)
def engine(request: Any, database: Database) -> Iterator[Engine]:
    made = create_engine(database.url(request.param), pool_size=1, max_overflow=0, future=True)
    attach(made)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as made:
        yield made


@pytest.mark.parametrize(
    "statement",
    [
        f"SET LOCAL statement_timeout = '5s'; {ROW}",
        f"LOCK leads; {ROW}",
        f"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; {ROW}",
        f"COMMIT; {ROW}",
        f"{ROW}; COMMIT; {ROW}",
        f"SELECT 1; {ROW}",
        f"SHOW server_version; SELECT ';'; {ROW}; {ROW}",
        f"ROLLBACK AND CHAIN; {ROW}; COMMIT",
        f"SAVEPOINT a; {ROW}; ROLLBACK TO a; {ROW}; RELEASE a; {ROW}",
        f"/* so */ {ROW} -- '\n; {ROW}",
        f"SET CONSTRAINTS ALL IMMEDIATE; {ROW}",
    ],
)
def test_in_a_transaction(engine: Engine, database: Database, statement: str) -> None:
    with engine.connect() as connection:
        with ALICE:
            connection.execute(text(statement.replace(":", "\\:")))
            insert(connection, "after")
        with BOB:
            insert(connection, "bob")
        connection.commit()
    users = database.users()
    assert len(users) >= 3 and users == ["alice"] * (len(users) - 1) + ["bob"]


def test_a_context_of_before_is_not_used(engine: Engine, database: Database) -> None:
    with engine.begin() as connection:
        with ALICE:
            insert(connection, "alice")
            connection.execute(text("SAVEPOINT a"))
        with BOB:
            connection.execute(text(f"SET LOCAL statement_timeout = 0; {ROW}"))
            connection.execute(text(f"RELEASE a; {ROW}"))
            connection.execute(text("SAVEPOINT b"))
        with ALICE:
            insert(connection, "alice 2")
            connection.execute(text("SELECT 1; ROLLBACK TO b"))  # this restores bob's context
            insert(connection, "alice 3")
        with BOB:
            connection.execute(text(f"ROLLBACK TO b; {ROW}"))
        connection.execute(text(f"ROLLBACK TO b; {ROW}"))  # the rollback restores the empty context
        with ALICE:
            connection.execute(text("RELEASE b; SAVEPOINT b"))
            insert(connection, "alice 4")
        with BOB:
            insert(connection, "lost")
            connection.execute(text("ROLLBACK TO b"))
            insert(connection, "bob")
    # The audit trail does not contain the entries that were rolled back.
    assert database.users() == ["alice", "bob", "bob", None, "bob"]


@pytest.mark.parametrize(
    ("statement", "entries"),
    [
        (f"BEGIN; {ROW}; COMMIT", 1),
        (f"BEGIN ISOLATION LEVEL SERIALIZABLE; {ROW}; COMMIT", 1),
        (f"BEGIN; {ROW}; COMMIT; {ROW}", 2),
        (f"BEGIN; {ROW}; ROLLBACK; {ROW}", 1),
        (
            (
                f"START TRANSACTION; {ROW}; SAVEPOINT a; {ROW}; ROLLBACK TO a; {ROW};"
                f" COMMIT AND CHAIN; {ROW}; COMMIT"
            ),
            3,
        ),
        (f"CREATE TEMP TABLE t (a int); {ROW}", 1),
        (f"SET LOCAL statement_timeout = '5s'; {ROW}", 1),
        (f"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; {ROW}", 1),
        (f"{ROW}; {ROW}", 2),
        (f"SELECT 1; {ROW}", 1),
        ("SELECT 1; SELECT touch()", 1),
    ],
)
def test_in_autocommit(
    connection: Connection, database: Database, statement: str, entries: int
) -> None:
    database.query(
        "CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS"
        " 'INSERT INTO leads (id) SELECT gen_random_uuid()'"
    )
    with ALICE:
        connection.execute(text(statement))
    insert(connection, "nobody")
    assert connection.execute(
        text("SELECT current_setting('lead_audit.user_id', true)")
    ).scalar() in (None, "")
    assert database.users() == ["alice"] * entries + [None]


def test_a_transaction_that_is_left_open(connection: Connection, database: Database) -> None:
    with ALICE:
        connection.execute(text(f"BEGIN; {ROW}"))
        insert(connection, "alice")
    with BOB:
        insert(connection, "bob")
        connection.execute(text(f"COMMIT; {ROW}"))
        insert(connection, "bob 2")
    assert database.users() == ["alice", "alice", "bob", "bob", "bob"]


def test_results_are_those_of_the_application(connection: Connection) -> None:
    """For a query string, psycopg 3 shows the first result, and psycopg2 shows the last result."""
    is_last = connection.dialect.driver == "psycopg2"
    with ALICE:
        first = connection.execute(text(f"{ROW} RETURNING 'one'; COMMIT; {ROW} RETURNING 'two'"))
        assert first.scalar() == ("two" if is_last else "one")
        only = connection.execute(text(f"BEGIN; {ROW}; COMMIT"))
        assert not only.returns_rows
        percent = connection.exec_driver_sql(
            f"BEGIN; {ROW}; SELECT '100 %%'; COMMIT", () if is_last else None
        )
        assert not percent.returns_rows


def test_sql_functions_and_rules_are_one_statement(
    connection: Connection, database: Database
) -> None:
    database.query("GRANT CREATE ON SCHEMA public TO app")
    with ALICE:
        connection.execute(
            text(
                """CREATE FUNCTION twice() RETURNS void LANGUAGE sql BEGIN ATOMIC
                     INSERT INTO leads (id) SELECT CASE WHEN true THEN gen_random_uuid() END;
                     INSERT INTO leads (id) SELECT gen_random_uuid();
                   END"""
            )
        )
        connection.execute(text("CREATE VIEW v AS SELECT 1 AS a"))
        connection.execute(text(f"CREATE RULE r AS ON INSERT TO v DO INSTEAD ({ROW}; {ROW})"))
        connection.execute(text("SELECT twice()"))
        connection.execute(text("INSERT INTO v VALUES (1)"))
    assert database.users() == ["alice"] * 4


@pytest.mark.skipif(SQLALCHEMY_14, reason="SQLAlchemy 1.4 has no psycopg")
async def test_async(database: Database) -> None:
    assert "psycopg_async" in ASYNC
    engine = create_async_engine(database.url("psycopg_async"))
    attach(engine)
    with ALICE:
        async with engine.begin() as connection:
            await connection.execute(text(f"SAVEPOINT a; {ROW}; ROLLBACK TO a; {ROW}"))
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text(f"BEGIN; {ROW}; COMMIT; {ROW}"))
    await engine.dispose()
    assert database.users() == ["alice"] * 3
