"""Tests of statements that are executed with a driver's cursor, without SQLAlchemy.

If a driver's cursor executes ROLLBACK TO, PostgreSQL also rolls back the settings of the context.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine

from lead_audit.sqlalchemy import apply_context, attach

from .cluster import Database, StatementLog
from .drivers import ASYNC, SYNC
from .test_sqlalchemy import ALICE, BOB, engine, insert  # noqa: F401 (a fixture)


def run_raw(connection: Connection, statement: str) -> None:
    cursor: Any = connection.connection.cursor()
    cursor.execute(statement)
    cursor.close()


def test_a_savepoint_that_a_raw_cursor_rolls_back(engine: Engine, database: Database) -> None:  # noqa: F811
    for number in range(2):  # in the second pass, the connection comes from the pool
        with engine.begin() as connection:
            run_raw(connection, "SAVEPOINT a")
            with ALICE:
                insert(connection, "lost")
            run_raw(connection, "ROLLBACK TO a")
            with ALICE:
                insert(connection, f"1 {number}")
            with BOB:
                insert(connection, f"2 {number}")
                run_raw(connection, "SAVEPOINT b; SELECT 1")
            with ALICE:
                insert(connection, "lost")
                run_raw(connection, "/* so */ ROLLBACK WORK TO SAVEPOINT b")
                insert(connection, f"3 {number}")
    assert database.users() == ["alice", "bob", "alice"] * 2


def test_the_savepoint_of_a_raw_cursor_is_not_one_of_the_same_name(
    engine: Engine, database: Database
) -> None:  # noqa: F811
    with engine.begin() as connection:
        with ALICE:
            insert(connection, "1")
            connection.execute(text("SAVEPOINT a"))
        with BOB:
            insert(connection, "2")
            run_raw(connection, "SAVEPOINT a")
        with ALICE:
            insert(connection, "lost")
            connection.execute(text("ROLLBACK TO a"))
            insert(connection, "3")
        with BOB:
            insert(connection, "4")
    assert database.users() == ["alice", "bob", "alice", "bob"]


def test_a_transaction_that_a_raw_cursor_ends(engine: Engine, database: Database) -> None:  # noqa: F811
    with engine.connect() as connection:
        with ALICE:
            insert(connection, "lost")
            run_raw(connection, "ROLLBACK")
            run_raw(connection, "BEGIN")
            insert(connection, "1")
            run_raw(connection, "COMMIT; BEGIN")
            insert(connection, "2")
            connection.commit()
    assert database.users() == ["alice", "alice"]


def test_cursors_from_elsewhere(engine: Engine, database: Database) -> None:  # noqa: F811
    """Tests a cursor made before the first statement, and a cursor of a result's connection."""
    with engine.begin() as connection:
        driver: Any = connection.connection.dbapi_connection
        early = driver.cursor()
        result: Any = connection.execute(text("SELECT 1 AS one"))
        early.execute("SAVEPOINT a")
        for cursor in (early, result.cursor.connection.cursor()):
            with ALICE:
                insert(connection, "lost")
            cursor.execute("ROLLBACK TO a")
            with ALICE:
                insert(connection, f"{cursor is early}")
            cursor.execute("ROLLBACK TO a")
    assert database.users() == []
    with engine.begin() as connection:
        connection.connection.cursor().executemany("SAVEPOINT a", [()])
        with ALICE:
            insert(connection, "lost")
        connection.connection.cursor().executemany("ROLLBACK TO a", [()])
        with ALICE:
            insert(connection, "1")
    assert database.users() == ["alice"]


def test_a_rollback_that_the_client_leaves_alone(engine: Engine, database: Database) -> None:  # noqa: F811
    alone = {"lead_audit": False}
    with engine.begin() as connection:
        connection.execute(text("SAVEPOINT a").execution_options(**alone))
        with ALICE:
            insert(connection, "lost")
        connection.execute(text("ROLLBACK TO a").execution_options(**alone))
        with ALICE:
            insert(connection, "1")
    assert database.users() == ["alice"]


def test_rows_that_are_fetched_cost_no_round_trip(
    engine: Engine, database: Database, statement_log: StatementLog
) -> None:  # noqa: F811
    with ALICE, engine.begin() as connection:
        insert(connection, "1")
        rows = connection.execution_options(stream_results=True).execute(
            text("SELECT generate_series(1, 100)")
        )
        before = len(statement_log.statements())
        for number in range(5):
            assert len(rows.fetchmany(5)) == 5
            insert(connection.execution_options(stream_results=False), f"2 {number}")
        rows.close()
        insert(connection, "3")
        assert "set_config" not in statement_log.statements()[before:]
    assert database.users() == ["alice"] * 7


def test_a_connection_that_is_open_before_attach(database: Database) -> None:
    for driver in SYNC:
        engine = create_engine(database.url(driver), pool_size=1, max_overflow=0, future=True)  # noqa: F811
        with engine.begin() as connection:
            connection.execute(text("SAVEPOINT a"))
            attach(engine)
            with ALICE:
                insert(connection, "lost")
            run_raw(connection, "ROLLBACK TO a")
            with ALICE:
                insert(connection, driver)
        engine.dispose()
    assert database.users() == ["alice"] * len(SYNC)


@pytest.mark.parametrize("driver", ASYNC)
async def test_async_drivers(driver: str, database: Database) -> None:
    engine = create_async_engine(database.url(driver), pool_size=1, max_overflow=0)  # noqa: F811
    attach(engine)
    async with engine.begin() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.execute(text("SELECT 1"))
        await raw.execute("SAVEPOINT a")
        with ALICE:
            await connection.execute(text("INSERT INTO leads (id) VALUES ('lost')"))
        await raw.execute("ROLLBACK TO a")
        with ALICE:
            await connection.execute(text("INSERT INTO leads (id) VALUES ('1')"))
    await engine.dispose()
    assert database.users() == ["alice"]


# ---- psycopg2 -----------------------------------------------------------------------------------


def psycopg2_engine(database: Database, **arguments: Any) -> Engine:
    made = create_engine(
        database.url("psycopg2"), pool_size=1, max_overflow=0, future=True, connect_args=arguments
    )
    attach(made)
    return made


def test_cursor_factories_of_psycopg2s(database: Database) -> None:
    """Cursors are still instances of the class that the application's cursor factory makes."""
    import psycopg2.extensions
    from psycopg2.extras import DictCursor

    class OwnCursor(psycopg2.extensions.cursor):
        pass

    class OwnConnection(psycopg2.extensions.connection):
        """Sets its cursor factory in cursor(), like the connection classes of psycopg2.extras."""

        def cursor(self, *arguments: Any, **named: Any) -> Any:
            named.setdefault("cursor_factory", self.cursor_factory or OwnCursor)
            return super().cursor(*arguments, **named)

    engine = psycopg2_engine(database, cursor_factory=DictCursor)  # noqa: F811
    with engine.begin() as connection:
        cursor: Any = connection.connection.cursor()
        assert isinstance(cursor, DictCursor) and type(cursor).__name__ == "DictCursor"
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone()["one"] == 1
        cursor.execute("SAVEPOINT a")
        with ALICE:
            insert(connection, "lost")
        cursor.execute("ROLLBACK TO a")
        with ALICE:
            insert(connection, "1")
        named = connection.connection.cursor(name="some")
        named.execute("SELECT generate_series(1, 3)")
        assert [row[0] for row in named] == [1, 2, 3]
    engine.dispose()

    engine = psycopg2_engine(database, connection_factory=OwnConnection)
    with engine.begin() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert type(driver.cursor()) is OwnCursor
        run_raw(connection, "SAVEPOINT a")
        with ALICE:
            insert(connection, "lost")
        run_raw(connection, "ROLLBACK TO a")
        with ALICE:
            insert(connection, "2")
    engine.dispose()

    engine = psycopg2_engine(database)
    with engine.begin() as connection:
        driver = connection.connection.dbapi_connection
        run_raw(connection, "SAVEPOINT a")
        with ALICE:
            insert(connection, "lost")
        driver.cursor_factory = DictCursor
        run_raw(connection, "ROLLBACK TO a")
        with ALICE:
            insert(connection, "3")
        assert isinstance(driver.cursor(), DictCursor)
    engine.dispose()
    assert database.users() == ["alice"] * 3


def test_a_cursor_of_psycopg2s_that_is_not_followed(database: Database) -> None:
    """The client cannot see the statements of a cursor from `cursor(cursor_factory=…)`.

    The client also cannot see the statements of a cursor that the connection's own class makes. A
    call of apply_context() sets the context again (see README.md).
    """
    import psycopg2.extensions
    from psycopg2.extras import RealDictCursor

    engine = psycopg2_engine(database)  # noqa: F811
    for applies in (False, True):
        with engine.begin() as connection:
            driver: Any = connection.connection.dbapi_connection
            for cursor in (
                driver.cursor(cursor_factory=RealDictCursor),
                psycopg2.extensions.cursor(driver),
            ):
                cursor.execute("SAVEPOINT a")
                with ALICE:
                    insert(connection, "lost")
                cursor.execute("ROLLBACK TO a")
                with ALICE:
                    if applies:
                        apply_context(connection)
                    insert(connection, f"{applies} {type(cursor).__name__}")
                with BOB:
                    insert(connection, f"{applies} {type(cursor).__name__} bob")
    engine.dispose()
    assert database.users() == [None, "bob", "bob", "bob"] + ["alice", "bob"] * 2
