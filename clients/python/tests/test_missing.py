"""Tests of the reports about statements that write without a context or without a user."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from lead_audit import AuditContext, MissingContext, audit_context, detached, request_context
from lead_audit.sqlalchemy import attach

from .cluster import Database
from .drivers import ASYNC, SYNC
from .leads import Lead
from .test_sqlalchemy import INSERT, insert


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and record.name == "lead_audit"
    ]


def attached(database: Database, driver: str = SYNC[-1], **options: Any) -> Engine:
    engine = create_engine(database.url(driver), future=True)
    attach(engine, **options)
    return engine


@pytest.mark.parametrize("driver", SYNC)
def test_each_place_is_in_the_log_once_with_its_statement(
    driver: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    engine = attached(database, driver)
    with engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM leads"))
        for number in range(3):
            connection.execute(INSERT, {"id": f"{number}"})
            line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert len(warnings(caplog)) == 1
    assert (
        "without an audit context" in warnings(caplog)[0]
        and "INSERT INTO leads" in warnings(caplog)[0]
    )
    assert f"{__file__}:{line}: " in warnings(caplog)[0]
    with audit_context(request_id="r-1"), engine.begin() as connection:
        connection.execute(text("UPDATE leads SET source = 'x'"))
    assert len(warnings(caplog)) == 2 and "without a user" in warnings(caplog)[1]
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("SELECT count(*) FROM leads"))
        connection.execute(text("DELETE FROM leads"))
        connection.execution_options(lead_audit=False).execute(text("DELETE FROM leads"))
    assert len(warnings(caplog)) == 3 and "DELETE" in warnings(caplog)[2]
    with Session(engine) as session:
        session.add(Lead(id="orm"))
        session.commit()
    assert len(warnings(caplog)) == 4 and f"{__file__}:" in warnings(caplog)[3]
    engine.dispose()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
def test_refused(isolation: str, database: Database) -> None:
    engine = attached(database, on_missing="raise").execution_options(isolation_level=isolation)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM leads")).scalar() == 0
        connection.execute(text("CREATE TEMP TABLE t (a int)"))
        for statement in (
            "INSERT INTO leads (id) VALUES ('1')",
            "CALL f()",
            "SELECT 1; DELETE FROM leads",
            "ALTER TABLE leads ADD a int",
        ):
            with pytest.raises(MissingContext, match="without an audit context") as refused:
                connection.execute(text(statement))
            assert refused.value.statement == statement
        with audit_context(request_id="r-1"), pytest.raises(MissingContext, match="without a user"):
            insert(connection, "1")
        with AuditContext("alice"):
            insert(connection, "1")
        if isolation != "AUTOCOMMIT":
            connection.commit()
    engine.dispose()
    assert database.users() == ["alice"]


def test_what_calls_what_writes_is_known_from_the_catalogue(database: Database) -> None:
    database.query(
        """CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS
             $$ INSERT INTO leads (id) SELECT gen_random_uuid() RETURNING 1 $$;
           CREATE FUNCTION pure() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
           CREATE VIEW touching AS SELECT touch()"""
    )
    engine = attached(database, on_missing="raise")
    with engine.connect() as connection:
        connection.execute(text("SELECT pure(), count(*) FROM leads"))
        for statement in ("SELECT touch()", "TABLE touching", "WITH x AS (SELECT touch()) TABLE x"):
            with pytest.raises(MissingContext):
                connection.execute(text(statement))
    engine.dispose()


def test_ignored(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    engine = attached(database, on_missing="ignore")
    with engine.begin() as connection:
        insert(connection, "1")
    engine.dispose()
    assert warnings(caplog) == [] and database.users() == [None]


def test_session_factories_and_options(database: Database) -> None:
    engine = create_engine(database.url(SYNC[-1]), future=True)
    factory: Any = sessionmaker(future=True)
    attach(factory, on_missing="raise")
    with factory(bind=engine) as session:
        session.add(Lead(id="1"))
        with pytest.raises(MissingContext):
            session.commit()
    with pytest.raises(ValueError, match="on_missing"):
        attach(engine, on_missing="shout")  # type: ignore[arg-type]
    engine.dispose()


@pytest.mark.parametrize("driver", ASYNC)
async def test_a_task_that_writes_after_its_request(
    driver: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(database.url(driver))
    attach(engine)
    over = asyncio.Event()

    async def work(id: str) -> None:
        await over.wait()
        for number in range(2):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT 1"))
                await connection.execute(INSERT, {"id": f"{id}-{number}"})

    with request_context(AuditContext("alice")):
        tasks = [asyncio.ensure_future(work("survivor"))]
        with detached(), AuditContext("worker"):
            tasks.append(asyncio.ensure_future(work("worker")))
    over.set()
    await asyncio.gather(*tasks)
    await engine.dispose()
    (warning,) = warnings(caplog)
    assert (
        "outlived its request" in warning
        and "detached()" in warning
        and f"{__file__}:" in warning
        and "INSERT" in warning
    )
    assert sorted(map(str, database.users())) == ["alice", "alice", "worker", "worker"]


async def test_the_place_is_found_from_a_greenlet(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(database.url(ASYNC[0]))
    attach(engine)
    async with engine.begin() as connection:
        await connection.execute(INSERT, {"id": "1"})
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    await engine.dispose()
    assert f"{__file__}:{line}: " in warnings(caplog)[0]


def test_errors_of_the_database_are_as_before(database: Database) -> None:
    engine = attached(database)
    with engine.connect() as connection, pytest.raises(exc.ProgrammingError):
        connection.execute(text("INSERT INTO nosuch VALUES (1)"))
    engine.dispose()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
def test_the_trail_is_read_without_a_user(isolation: str, database: Database) -> None:
    from lead_audit import trail

    engine = create_engine(
        Database(database.socket, database.name, "postgres").url(SYNC[-1]), future=True
    )
    attach(engine, on_missing="raise")
    with engine.execution_options(isolation_level=isolation).connect() as connection:
        assert (
            trail.history(connection, "leads", "1")
            == trail.verify(connection)
            == trail.check(connection, "leads", "1")
            == []
        )
        assert trail.summary(connection, "leads", "1").total == 0
        assert connection.execute(trail.select_log()).all() == []
    engine.dispose()
