"""Tests of the context in transactions of SQLAlchemy, with the async drivers."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from lead_audit import AuditContext, audit_context
from lead_audit.sqlalchemy import apply_context, attach

from .cluster import Database, StatementLog
from .drivers import ASYNC
from .leads import Lead
from .test_sqlalchemy import ALICE, BOB, INSERT


@pytest_asyncio.fixture(params=ASYNC)
async def engine(request: Any, database: Database) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(database.url(request.param), pool_size=1, max_overflow=0)
    attach(made)
    yield made
    await made.dispose()


async def insert(connection: Any, id: str) -> None:
    await connection.execute(INSERT, {"id": id})


async def test_transactions_savepoints_and_changes(engine: AsyncEngine, database: Database) -> None:
    with ALICE:
        async with engine.begin() as connection:
            await insert(connection, "1")
            savepoint = await connection.begin_nested()
            with BOB:
                await insert(connection, "lost")
                await savepoint.rollback()
            await insert(connection, "2")
            with audit_context(user_id="system"):
                await insert(connection, "3")
    async with engine.begin() as connection:
        await insert(connection, "4")
    assert database.trail() == [
        ("INSERT", "alice", "203.0.113.7", "Firefox", "r-1"),
        ("INSERT", "alice", "203.0.113.7", "Firefox", "r-1"),
        ("INSERT", "system", "203.0.113.7", "Firefox", "r-1"),
        ("INSERT", None, None, None, None),
    ]


async def test_tasks_with_contexts_of_their_own(engine: AsyncEngine, database: Database) -> None:
    factory: Any = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def work(user: str) -> None:
        AuditContext.set(AuditContext(user))
        async with factory() as session:
            session.add(Lead(id=user, source=user))
            await asyncio.sleep(0)
            await session.commit()

    await asyncio.gather(*(work(f"user-{i}") for i in range(20)))
    assert AuditContext.current() == AuditContext()
    assert (
        len(database.query("SELECT 1 FROM lead_audit.log WHERE user_id = row_key ->> 'id'")) == 20
    )


async def test_one_statement_and_none_where_nothing_changes(
    engine: AsyncEngine, database: Database, statement_log: StatementLog
) -> None:
    async with engine.connect() as connection:
        await insert(connection, "0")
        await connection.commit()
    before = len(statement_log.statements())  # the dialect has already run its own queries
    with ALICE:
        async with engine.begin() as connection:
            await insert(connection, "1")
            async with connection.begin_nested():
                await insert(connection, "2")
        async with engine.connect() as connection:
            await connection.commit()
    async with engine.begin() as connection:
        await insert(connection, "3")
    seen = [word.rstrip(";") for word in statement_log.statements()[before:]]
    assert seen == (
        ["BEGIN", "set_config", "INSERT", "SAVEPOINT", "INSERT", "RELEASE", "COMMIT"]
        + ["BEGIN", "INSERT", "COMMIT"]
    )


async def test_commit_by_hand(engine: AsyncEngine, database: Database) -> None:
    with ALICE:
        async with engine.connect() as connection:
            await insert(connection, "1")
            await connection.execute(text("COMMIT"))
            await insert(connection, "2")
            await insert(connection, "3")
            await connection.commit()
            await insert(connection, "4")
            await connection.commit()
    assert database.users() == ["alice"] * 4


async def test_autocommit(engine: AsyncEngine, database: Database) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with auto.connect() as connection:
        with ALICE:
            await insert(connection, "1")
            result = await connection.execute(text("UPDATE leads SET source = 'web' RETURNING id"))
            assert result.all() == [("1",)]
            with pytest.raises(Exception, match="duplicate key"):
                await insert(connection, "1")
        await insert(connection, "2")
    assert database.users() == ["alice", "alice", None]


async def test_session_factory(database: Database) -> None:
    late: Any = sessionmaker(class_=AsyncSession)
    attach(late)
    attach(late)
    engine = create_async_engine(database.url("asyncpg"))
    with ALICE:
        async with late(bind=engine) as session:
            session.add(Lead(id="1"))
            await session.commit()
            await session.run_sync(apply_context)
    await engine.dispose()
    assert database.users() == ["alice"]


async def test_reconnect(engine: AsyncEngine, database: Database) -> None:
    with ALICE:
        async with engine.connect() as connection:
            await insert(connection, "lost")
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
            database.query("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(exc.DBAPIError) as lost:
                for _ in range(100):  # repeats until the driver notices that the connection is lost
                    await insert(connection, "lost too")
            assert lost.value.connection_invalidated
            await connection.rollback()
            await insert(connection, "1")
            await connection.commit()
    assert database.trail() == [("INSERT", *ALICE.settings())]


async def test_cancelled_in_mid_transaction(engine: AsyncEngine, database: Database) -> None:
    started = asyncio.Event()

    async def work() -> None:
        with ALICE:
            async with engine.begin() as connection:
                await insert(connection, "lost")
                started.set()
                await connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.ensure_future(work())
    await started.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with engine.begin() as connection:
        await insert(connection, "1")
    assert database.users() == [None]


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
async def test_tasks_that_share_a_connection(
    isolation: str, engine: AsyncEngine, database: Database
) -> None:
    """Tests that each statement has the context of the task that executes the statement."""

    async def work(connection: Any, user: str) -> None:
        with audit_context(user_id=user):
            for number in range(5):
                await insert(connection, f"{user}-{number}")
                await connection.execute(text("SELECT count(*) FROM leads"))
                await connection.execute(
                    text("UPDATE leads SET source = 'x' WHERE id = :id"), {"id": f"{user}-{number}"}
                )

    async with engine.execution_options(isolation_level=isolation).connect() as connection:
        await connection.execute(text("SELECT 1"))
        await asyncio.wait_for(
            asyncio.gather(*(work(connection, f"u{number}") for number in range(8))), 60
        )
        if isolation != "AUTOCOMMIT":
            await connection.commit()
    whose = database.query(
        "SELECT user_id, split_part(row_key ->> 'id', '-', 1), count(*) FROM lead_audit.log"
        " GROUP BY 1, 2 ORDER BY 1"
    )
    assert whose == [(f"u{number}", f"u{number}", 10) for number in range(8)]


async def test_a_task_that_is_cancelled_while_it_waits_for_the_connection(
    engine: AsyncEngine, database: Database
) -> None:
    """SQLAlchemy closes a cancelled task's connection.

    Other tasks that share the closed connection must not wait forever.
    """

    async def work(connection: Any, user: str, seconds: float = 0) -> None:
        with audit_context(user_id=user):
            await connection.execute(
                text("INSERT INTO leads (id) SELECT :id FROM pg_sleep(:seconds)"),
                {"id": user, "seconds": seconds},
            )

    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        tasks = [asyncio.ensure_future(work(connection, "slow", 0.5))]
        tasks += [asyncio.ensure_future(work(connection, f"u{number}")) for number in range(4)]
        await asyncio.sleep(0.2)
        tasks[1].cancel()
        tasks[3].cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert isinstance(ended[1], asyncio.CancelledError) and isinstance(
        ended[3], asyncio.CancelledError
    )
    with audit_context(user_id="after"):
        async with engine.begin() as connection:
            await insert(connection, "after")
    whose = database.query("SELECT user_id, row_key ->> 'id' FROM lead_audit.log")
    assert ("after", "after") in whose and all(user == id for user, id in whose)


def test_task_lock() -> None:
    """If a waiting task is cancelled, even right after it woke, the next task gets the lock."""
    from lead_audit.task_lock import TaskLock

    async def run() -> list[str]:
        import greenlet
        from sqlalchemy import util

        await_only: Any = (
            getattr(util, "await_only", None) or util.await_
        )  # the first value is for SQLAlchemy before 2.1, the second for 2.1 and later

        assert greenlet
        lock, order, is_inside = TaskLock(), [], False

        def work(name: str) -> None:
            nonlocal is_inside
            with lock.hold(await_only), lock.hold(await_only):
                assert not is_inside
                is_inside = True
                await_only(asyncio.sleep(0.01))
                order.append(name)
                is_inside = False

        tasks = [
            asyncio.ensure_future(util.greenlet_spawn(work, f"{number}")) for number in range(6)
        ]
        await asyncio.sleep(0.005)
        tasks[2].cancel()
        while not order:
            await asyncio.sleep(0)
        tasks[1].cancel()  # the task was woken, but has not continued yet
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        return order

    order = asyncio.run(run())
    assert order in (["0", "3", "4", "5"], ["0", "1", "3", "4", "5"])


async def test_a_statement_inside_of_another_does_not_wait_for_it(
    engine: AsyncEngine, database: Database
) -> None:
    """A listener that writes on the same connection runs in the task that holds the lock."""
    from sqlalchemy import event

    seen: list[str] = []

    def also(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        if not seen and "INSERT" in statement:
            seen.append(statement)
            context.root_connection.execute(INSERT, {"id": "inner"})

    event.listen(engine.sync_engine, "do_execute", also)
    with ALICE:
        async with engine.begin() as connection:
            await asyncio.wait_for(insert(connection, "outer"), 20)
    assert database.users() == ["alice"] * 2


async def test_a_savepoint_of_the_drivers_own(engine: AsyncEngine, database: Database) -> None:
    async with engine.begin() as connection:
        with ALICE:
            await insert(connection, "1")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for number in range(2):
            with pytest.raises(ValueError):
                async with driver.transaction():
                    with BOB:
                        await insert(connection, f"lost {number}")
                    raise ValueError
            with BOB:
                await insert(connection, f"2 {number}")
            async with driver.transaction():
                with ALICE:
                    await insert(connection, f"3 {number}")
    assert database.users() == ["alice", "bob", "alice", "bob", "alice"]
