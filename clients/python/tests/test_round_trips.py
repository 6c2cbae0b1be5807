"""Tests how many round trips the context takes, with each driver and a real server."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from lead_audit import AuditContext
from lead_audit.sqlalchemy import attach

from .cluster import Cluster, Database
from .drivers import ASYNC, SYNC
from .round_trips import Counter
from .test_pgbouncer import CONNECT_ARGS

INSERT = text("INSERT INTO leads (id) VALUES (:id) RETURNING id")
READ = text("SELECT count(*) FROM leads")
ALICE = AuditContext("alice", "203.0.113.7", "Firefox", "r-1")

# For each driver, the number of additional round trips that the context takes for a writing
# statement in AUTOCOMMIT. asyncpg has no pipelines, so the context takes two round trips.
EXTRA_IN_AUTOCOMMIT = {"psycopg2": 0, "psycopg": 0, "psycopg_async": 0, "asyncpg": 2}


@pytest.fixture
def counter(cluster: Cluster) -> Iterator[Counter]:
    made = Counter(cluster.socket)
    yield made
    made.close()


@pytest.mark.parametrize("prepares", [True, False], ids=["prepares", "behind a pooler"])
@pytest.mark.parametrize("driver", SYNC)
def test_sync_drivers(driver: str, prepares: bool, counter: Counter, database: Database) -> None:
    arguments: Any = {} if prepares else CONNECT_ARGS[driver]
    engine = create_engine(
        counter.database(database).url(driver),
        pool_size=1,
        max_overflow=0,
        connect_args=arguments,
        future=True,
    )
    attach(engine)
    for number in range(
        10 if prepares else 1
    ):  # psycopg prepares its statements, and the dialect runs its own queries
        with ALICE, engine.begin() as connection:
            connection.execute(INSERT, {"id": f"w{number}"})
            connection.execute(READ)

    with counter.expect(4), engine.begin() as connection:  # BEGIN, INSERT, SELECT, COMMIT
        connection.execute(INSERT, {"id": "1"})
        connection.execute(READ)
    with ALICE, counter.expect(5), engine.begin() as connection:
        connection.execute(INSERT, {"id": "2"})
        connection.execute(READ)
    with ALICE, counter.expect(0), engine.connect() as connection:
        connection.commit()

    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with counter.expect(1):
            connection.execute(INSERT, {"id": "3"})
        for number in range(10):
            with ALICE, counter.expect(1 + EXTRA_IN_AUTOCOMMIT[driver]):
                assert connection.execute(INSERT, {"id": f"a{number}"}).all() == [(f"a{number}",)]
            with ALICE, counter.expect(1):
                connection.execute(READ)
    engine.dispose()
    assert database.users()[-13:] == [None, "alice", None] + ["alice"] * 10


@pytest.mark.parametrize("prepares", [True, False], ids=["prepares", "behind a pooler"])
@pytest.mark.parametrize("driver", ASYNC)
async def test_async_drivers(
    driver: str, prepares: bool, counter: Counter, database: Database
) -> None:
    arguments: Any = {} if prepares else CONNECT_ARGS[driver]
    engine = create_async_engine(
        counter.database(database).url(driver), pool_size=1, max_overflow=0, connect_args=arguments
    )
    attach(engine)
    async with engine.connect() as connection:
        await connection.execute(INSERT, {"id": "0"})
        await connection.execute(READ)
        await connection.rollback()

    before = counter.round_trips
    async with engine.begin() as connection:
        await connection.execute(INSERT, {"id": "1"})
    alone = counter.round_trips - before
    with ALICE, counter.expect(alone + 1):
        async with engine.begin() as connection:
            await connection.execute(INSERT, {"id": "2"})
    with ALICE, counter.expect(0):
        async with engine.connect() as connection:
            await connection.commit()

    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        before = counter.round_trips
        await connection.execute(INSERT, {"id": "a"})
        alone = counter.round_trips - before
        for number in range(10):
            with ALICE, counter.expect(alone + EXTRA_IN_AUTOCOMMIT[driver]):
                assert (await connection.execute(INSERT, {"id": f"a{number}"})).all() == [
                    (f"a{number}",)
                ]
        before = counter.round_trips
        await connection.execute(READ)
        alone = counter.round_trips - before
        with ALICE, counter.expect(alone):
            await connection.execute(READ)
    await engine.dispose()
    assert database.users() == [None, "alice", None] + ["alice"] * 10
