"""Tests with PgBouncer in session and transaction mode: many requests share few connections.

The requests share few connections to the server, but no entry may have a wrong user.
"""

from __future__ import annotations

import asyncio
import random
import uuid
import warnings
from typing import Any, AsyncIterator, Iterator

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from lead_audit import AuditContext, audit_context
from lead_audit.sqlalchemy import attach
from lead_audit.starlette import AuditMiddleware

from .cluster import Cluster, Database
from .drivers import ASYNC, SQLALCHEMY_14, SYNC
from .leads import Lead
from .pgbouncer import PgBouncer
from .test_fastapi import client

REQUESTS, USERS, CONNECTIONS = 200, 50, 5

# For each driver, the arguments of connect() with which the driver works behind PgBouncer in
# transaction mode. PgBouncer before 1.21 does not support prepared statements.
CONNECT_ARGS: dict[str, dict[str, Any]] = {
    "psycopg2": {},
    "psycopg": {"prepare_threshold": None},
    "psycopg_async": {"prepare_threshold": None},
    "asyncpg": {"statement_cache_size": 0, "prepared_statement_cache_size": 0},
}
if not SQLALCHEMY_14:
    CONNECT_ARGS["asyncpg"]["prepared_statement_name_func"] = lambda: f"__asyncpg_{uuid.uuid4()}__"


@pytest.fixture(params=["transaction", "session"])
def pgbouncer(request: Any, cluster: Cluster) -> Iterator[PgBouncer]:
    """Starts PgBouncer with a pool of five connections to the server."""
    made = PgBouncer(cluster.socket, request.param, CONNECTIONS)
    yield made
    made.stop()


@pytest.fixture
def pooled(pgbouncer: PgBouncer, database: Database) -> Database:
    """Returns the test's database, reached through PgBouncer."""
    return pgbouncer.database(database)


def application(engine: AsyncEngine) -> FastAPI:
    """Makes an application. Each request to it writes a lead in transactions of several kinds."""
    factory: Any = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
    attach(factory)
    app = FastAPI()
    app.add_middleware(AuditMiddleware, user=lambda request: request.headers["x-user"])

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with factory() as session:
            yield session

    @app.post("/leads/{id}")
    async def work(id: str, session: AsyncSession = Depends(get_session)) -> dict[str, str]:
        lead = Lead(id=id, source="web")
        session.add(lead)
        await session.flush()
        await asyncio.sleep(random.random() / 100)
        lead.source = "yelp"
        await session.commit()
        async with session.begin_nested() as savepoint:
            lead.source = "lost"
            await session.flush()
            await savepoint.rollback()
        await session.execute(text("UPDATE leads SET email = 'x' WHERE id = :id"), {"id": id})
        await session.commit()
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("DELETE FROM leads WHERE id = :id"), {"id": id})
        return {}

    @app.post("/autocommit/{id}")
    async def work_in_autocommit(id: str) -> dict[str, str]:
        """Writes the same number of entries as work(), each statement in its own transaction."""
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            statements = (
                "INSERT INTO leads (id) VALUES (:id) RETURNING id",
                (
                    "UPDATE leads SET source = 'yelp' FROM pg_sleep(random() / 100) WHERE id = :id"
                    " RETURNING id"
                ),
                "UPDATE leads SET email = 'x' WHERE id = :id RETURNING id",
            )
            for statement in statements:
                assert (await connection.execute(text(statement), {"id": id})).all() == [(id,)]
            with pytest.raises(IntegrityError):
                await connection.execute(text(statements[0]), {"id": id})
            assert (
                await connection.execute(text("DELETE FROM leads WHERE id = :id"), {"id": id})
            ).rowcount == 1
        return {}

    return app


def headers(request: int) -> dict[str, str]:
    return {
        "x-user": f"user-{request % USERS}",
        "user-agent": f"Browser {request % USERS}",
        "x-request-id": f"r-{request}",
    }


async def send(app: FastAPI, request: int, path: str) -> httpx.Response:
    async with client(app, f"203.0.113.{request % USERS}") as http:
        return await http.post(f"/{path}/r-{request}", headers=headers(request))


def foreign_entries(database: Database) -> list[Any]:
    """Returns the entries whose context is not the context of the request that wrote their lead."""
    return database.query(
        """SELECT row_key, operation, user_id, user_ip, user_agent, request_id FROM lead_audit.log,
             LATERAL (SELECT split_part(row_key ->> 'id', '-', 2)::int % %s) AS u (user_number)
           WHERE (request_id, user_id, user_ip, user_agent) IS DISTINCT FROM
             (row_key ->> 'id', 'user-' || user_number, '203.0.113.' || user_number,
              'Browser ' || user_number)""".replace("% %s", f"% {USERS}")
    )


@pytest.mark.parametrize("path", ["leads", "autocommit"])
@pytest.mark.parametrize("driver", ASYNC)
async def test_200_requests_of_50_users_over_5_connections(
    driver: str, path: str, pooled: Database, database: Database
) -> None:
    engine = create_async_engine(
        pooled.url(driver),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=120,
        connect_args=CONNECT_ARGS[driver],
    )
    app = application(engine)
    responses = await asyncio.gather(*(send(app, request, path) for request in range(REQUESTS)))
    await engine.dispose()
    assert [response.status_code for response in responses] == [200] * REQUESTS
    assert foreign_entries(database) == []
    assert database.query(
        "SELECT operation, count(*), count(DISTINCT user_id) FROM lead_audit.log GROUP BY 1"
        " ORDER BY 1"
    ) == [
        ("DELETE", REQUESTS, USERS),
        ("INSERT", REQUESTS, USERS),
        ("UPDATE", 2 * REQUESTS, USERS),
    ]


@pytest.mark.parametrize("path", ["leads", "autocommit"])
@pytest.mark.parametrize("driver", ASYNC)
async def test_requests_cancelled_half_way(
    driver: str, path: str, pgbouncer: PgBouncer, pooled: Database, database: Database
) -> None:
    """Half of the requests are cancelled.

    The entries of the other requests must have the right context.
    """
    engine = create_async_engine(
        pooled.url(driver),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=120,
        connect_args=CONNECT_ARGS[driver],
    )
    app = application(engine)
    tasks = [asyncio.ensure_future(send(app, request, path)) for request in range(REQUESTS)]
    chosen = random.Random(7)
    while not all(task.done() for task in tasks):
        await asyncio.sleep(chosen.random() / 50)
        running = [task for number, task in enumerate(tasks) if number % 2 and not task.done()]
        for task in chosen.sample(running, min(3, len(running))):
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(end, asyncio.CancelledError) for end in ended)
    if pgbouncer.ends():
        warnings.warn(f"PgBouncer had {pgbouncer.ends()} internal errors", stacklevel=1)
        # If PgBouncer has ended, requests that were not cancelled have lost their connections, too.
        # In this case the test only checks that no entry has a wrong context.
        pgbouncer.wait()
        await engine.dispose()
    else:
        # PgBouncer before 1.19 can send a cancel request when another client already uses the
        # server connection, or can report the cancel to another client.
        meant_for_others = ("QueryCanceled", "successfully sent cancel request")
        failed = [repr(end) for end in ended[::2] if isinstance(end, BaseException)]
        unexpected = [
            end for end in failed if not any(message in end for message in meant_for_others)
        ]
        # PgBouncer also disconnects wrong clients, because it uses the memory of a client that has
        # gone. The log has a line "pooler error" for each of them. The request in progress on such
        # a connection fails. The kind of its error depends on the bytes that the driver has read
        # before it finds the connection closed. SQLAlchemy does not recognize each of these errors
        # as the end of the connection. The next request on the connection can then fail, too.
        disconnected = pgbouncer.log().count("pooler error: ")
        if len(unexpected) > 2 * disconnected:
            pytest.fail(f"{unexpected}\n{pgbouncer.log()[-20_000:]}")
        assert (
            database.query("SELECT count(*) FROM lead_audit.log WHERE operation = 'INSERT'")[0][0]
            >= REQUESTS // 2 - 5
        )
    assert AuditContext.current() == AuditContext()
    assert foreign_entries(database) == []
    # The next transactions on the server connections have no context, so the entries of these
    # transactions must have no context.
    factory: Any = sessionmaker(engine, class_=AsyncSession)
    for number in range(2 * CONNECTIONS):
        async with factory() as session:
            session.add(Lead(id=f"nobody-{number}"))
            await session.commit()
    await engine.dispose()
    left = (
        "SELECT user_id, user_ip, user_agent, request_id FROM lead_audit.log"
        " WHERE row_key ->> 'id' LIKE 'nobody-%'"
    )
    assert database.query(left) == [(None, None, None, None)] * (2 * CONNECTIONS)


@pytest.mark.parametrize("driver", SYNC)
def test_sync_drivers(driver: str, pooled: Database, database: Database) -> None:
    """Each transaction gets its own connection. AUTOCOMMIT leaves no settings on the server."""
    engine = create_engine(
        pooled.url(driver), poolclass=NullPool, connect_args=CONNECT_ARGS[driver], future=True
    )
    attach(engine)
    for number in range(20):
        isolation = "AUTOCOMMIT" if number % 2 else "READ COMMITTED"
        with audit_context(user_id=f"user-{number}"):
            with engine.execution_options(isolation_level=isolation).connect() as connection:
                connection.execute(text("INSERT INTO leads (id) VALUES (:id)"), {"id": str(number)})
                if not number % 2:
                    connection.commit()
        with engine.connect() as connection:
            assert connection.execute(
                text("SELECT current_setting('lead_audit.user_id', true)")
            ).scalar() in (None, "")
    engine.dispose()
    assert database.users() == [f"user-{number}" for number in range(20)]
