"""Runs all drivers, FastAPI and Django at once for a minute, through PgBouncer.

PgBouncer runs in transaction mode. The test includes savepoints, cancellations, background tasks,
streaming responses and a restart of the server. At the end, no entry may have a wrong user. The id
of each lead begins with the name of the user who wrote it, and the request id contains this name.
So the test can compare the lead's id with the entry's user.

    python -m tests.stress [SECONDS]
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncIterator, Callable, Iterator

import httpx
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lead_audit import AuditContext, detached, identify
from lead_audit.sqlalchemy import attach
from lead_audit.starlette import AuditMiddleware

from .cluster import Cluster, Database, script
from .drivers import ASYNC, SYNC
from .pgbouncer import PgBouncer
from .test_pgbouncer import CONNECT_ARGS

INSERT = text("INSERT INTO leads (id) VALUES (:id)")
UPDATE = text("UPDATE leads SET source = 'x' WHERE id = :id")
CONNECTIONS = 6  # the number of connections from PgBouncer to the server
NOBODY = "nobody"

_numbers = itertools.count(1)
done: Counter[str] = Counter()
failed: Counter[str] = Counter()
wrong: list[str] = []
until = 0.0


def new_user() -> str:
    """Returns a new user name. Ids of the leads that this user writes begin with the name."""
    return f"u{next(_numbers)}"


def new_id(user: str) -> str:
    return f"{user}|{next(_numbers)}"


def context(user: str) -> AuditContext:
    return AuditContext(user, "203.0.113.7", "stress", f"r-{user}")


class Lost(Exception):
    """Raised to roll back a transaction or a savepoint."""


def attempts(kind: str, work: Callable[[], None]) -> None:
    """Repeats `work` until the time of the test is over.

    Errors of the database do not make the test fail, because the server restarts and connections
    are lost during the test.
    """
    while time.monotonic() < until:
        try:
            work()
            done[kind] += 1
        except AssertionError as error:
            wrong.append(f"{kind}: {error!r}")
        except Exception as error:
            failed[f"{kind}: {type(error).__name__}"] += 1
            time.sleep(0.05)


# ---- the sync drivers ---------------------------------------------------------------------------


def transaction(engine: Any) -> None:
    one, other = new_user(), new_user()
    with engine.connect() as connection:
        with context(one):
            connection.execute(INSERT, {"id": new_id(one)})
            savepoint = connection.begin_nested()
            with context(other):
                connection.execute(INSERT, {"id": new_id(other)})
                (savepoint.rollback if random.random() < 0.7 else savepoint.commit)()
            connection.execute(INSERT, {"id": new_id(one)})
            connection.execute(text("SAVEPOINT a"))
        with context(other):
            connection.execute(INSERT, {"id": new_id(other)})
            connection.execute(
                text(f"ROLLBACK TO a; INSERT INTO leads (id) VALUES ('{new_id(other)}')")
            )
            connection.execute(
                text(
                    "SET LOCAL statement_timeout = '30s';"
                    f" INSERT INTO leads (id) VALUES ('{new_id(other)}')"
                )
            )
        connection.execute(INSERT, {"id": new_id(NOBODY)})
        (connection.commit if random.random() < 0.9 else connection.rollback)()


def driver_transaction(engine: Any) -> None:
    one, other = new_user(), new_user()
    with engine.begin() as connection:
        with context(one):
            connection.execute(INSERT, {"id": new_id(one)})
        driver = connection.connection.driver_connection
        with driver.transaction(force_rollback=random.random() < 0.5), context(other):
            connection.execute(INSERT, {"id": new_id(other)})
        with context(other):
            connection.execute(INSERT, {"id": new_id(other)})


def autocommit(engine: Any) -> None:
    user = new_user()
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with context(user):
            id = new_id(user)
            connection.execute(INSERT, {"id": id})
            connection.execute(text("SELECT count(*) FROM leads WHERE id = :id"), {"id": id})
            connection.execute(UPDATE, {"id": id})
            connection.execute(INSERT, [{"id": new_id(user)} for _ in range(3)])
            connection.execute(text("SELECT touch(:id)"), {"id": new_id(user)})
            first, second = new_id(user), new_id(user)
            connection.execute(
                text(
                    f"BEGIN; INSERT INTO leads (id) VALUES ('{first}'); COMMIT;"
                    f" INSERT INTO leads (id) VALUES ('{second}')"
                )
            )
        connection.execute(INSERT, {"id": new_id(NOBODY)})


# ---- the async drivers --------------------------------------------------------------------------


def application(engine: AsyncEngine, background: set[asyncio.Future[None]]) -> FastAPI:
    app = FastAPI()
    app.add_middleware(AuditMiddleware, user=lambda request: request.headers.get("x-user"))
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def write(user: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(INSERT, {"id": new_id(user)})
            async with connection.begin_nested():
                await connection.execute(INSERT, {"id": new_id(user)})

    async def later(user: str) -> None:
        await asyncio.sleep(random.random() / 50)
        await write(user)

    @app.post("/transaction/{user}")
    async def in_transaction(user: str, tasks: BackgroundTasks) -> dict[str, str]:
        await write(user)
        tasks.add_task(later, user)
        return {}

    @app.post("/autocommit/{user}")
    async def in_autocommit(user: str) -> dict[str, str]:
        async with auto.connect() as connection:
            id = new_id(user)
            await connection.execute(INSERT, {"id": id})
            await connection.execute(UPDATE, {"id": id})
            await connection.execute(text("SELECT touch(:id)"), {"id": new_id(user)})
        return {}

    @app.post("/identified/{user}")
    async def identified(user: str) -> dict[str, str]:
        await asyncio.to_thread(identify, user, request_id=f"r-{user}")
        await write(user)
        return {}

    @app.post("/shared/{user}")
    async def shared(user: str) -> dict[str, str]:
        """Runs several tasks, each with its own context, which share one connection."""

        async def work(connection: Any, user: str) -> None:
            with context(user):
                await connection.execute(INSERT, {"id": new_id(user)})

        async with auto.connect() as connection:
            await asyncio.gather(*(work(connection, new_user()) for _ in range(4)))
        return {}

    @app.post("/streamed/{user}")
    async def streamed(user: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            identify(user, request_id=f"r-{user}")
            for _ in range(3):
                await write(user)
                yield "."

        return StreamingResponse(pieces())

    @app.post("/worker/{user}")
    async def worker(user: str) -> dict[str, str]:
        """A task that has no user and outlives the request."""
        with detached():
            task = asyncio.ensure_future(later(NOBODY))
        background.add(task)
        task.add_done_callback(background.discard)
        await write(user)
        return {}

    return app


PATHS = ("transaction", "autocommit", "identified", "shared", "streamed", "worker")


async def requests(driver: str, engine: AsyncEngine) -> None:
    background: set[asyncio.Future[None]] = set()
    app = application(engine, background)

    async def client(path: str) -> None:
        while time.monotonic() < until:
            user = new_user()
            headers = {"user-agent": "stress", "x-request-id": f"r-{user}"}
            if path not in ("identified", "streamed"):
                headers["x-user"] = user
            transport = httpx.ASGITransport(app=app, client=("203.0.113.7", 1))
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://leads") as http:
                    request = asyncio.ensure_future(http.post(f"/{path}/{user}", headers=headers))
                    if random.random() < 0.2:
                        await asyncio.sleep(random.random() / 20)
                        request.cancel()
                    await request
                done[f"{driver} {path}"] += 1
            except asyncio.CancelledError:
                done[f"{driver} cancelled"] += 1
            except Exception as error:
                failed[f"{driver} {path}: {type(error).__name__}"] += 1
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client(path) for path in PATHS for _ in range(2)))
    await asyncio.gather(*background, return_exceptions=True)


async def all_requests(pooled: Database) -> None:
    engines = {
        driver: create_async_engine(
            pooled.url(driver), pool_size=5, max_overflow=0, connect_args=CONNECT_ARGS[driver]
        )
        for driver in ASYNC
    }
    for engine in engines.values():
        attach(engine)
    await asyncio.gather(*(requests(driver, engine) for driver, engine in engines.items()))
    for engine in engines.values():
        await engine.dispose()


# ---- Django -------------------------------------------------------------------------------------


def user_of(request: Any) -> Any:
    """The function in LEAD_AUDIT["USER"]: returns the user whom the view has authenticated."""
    return getattr(request, "stress_user", None)


def django_requests(pooled: Database) -> Callable[[], None]:
    os.environ.update(
        DJANGO_SETTINGS_MODULE="tests.django_settings",
        LEAD_AUDIT_TEST_SOCKET=pooled.socket,
        LEAD_AUDIT_TEST_DATABASE=pooled.name,
    )
    import django
    from django.conf import settings

    settings.DATABASES["default"].update(DISABLE_SERVER_SIDE_CURSORS=True, CONN_MAX_AGE=None)
    settings.LEAD_AUDIT = {"USER": user_of}
    django.setup()
    from django.db import connection
    from django.db import transaction as django_transaction
    from django.http import HttpResponse, StreamingHttpResponse
    from django.test import RequestFactory

    from lead_audit.django import AuditMiddleware

    from .django_project import Lead

    def write(user: str) -> None:
        lead = Lead.objects.create(id=new_id(user))
        with django_transaction.atomic():
            Lead.objects.filter(id=lead.id).update(email="a@example.com")
            try:
                with django_transaction.atomic():
                    Lead.objects.create(id=new_id(user))
                    if random.random() < 0.5:
                        raise Lost
            except Lost:
                pass
            Lead.objects.create(id=new_id(user))

    def view(request: Any) -> Any:
        user = request.headers["x-user"]
        Lead.objects.filter(id="x").count()
        request.stress_user = user
        write(user)
        if random.random() < 0.7:
            return HttpResponse()

        def pieces() -> Iterator[str]:
            for _ in range(3):
                Lead.objects.create(id=new_id(user))
                yield "."

        return StreamingHttpResponse(pieces())

    middleware = AuditMiddleware(view)

    def work() -> None:
        user = new_user()
        request = RequestFactory().get(
            "/", REMOTE_ADDR="203.0.113.7", HTTP_X_USER=user, HTTP_X_REQUEST_ID=f"r-{user}"
        )
        try:
            response = middleware(request)
            if response.streaming:
                b"".join(response.streaming_content)
            if random.random() < 0.1:
                Lead.objects.create(id=new_id(NOBODY))
        except Exception:
            connection.close()
            raise
        if random.random() < 0.05:
            connection.close()
        assert AuditContext.current() == AuditContext()

    return work


# ---- all of it ----------------------------------------------------------------------------------


def restart(cluster: Cluster) -> None:
    """Restarts the server during the test, as an operator would."""
    socket = cluster.socket
    script("cluster.sh", "stop", cluster.directory, "fast")
    script("cluster.sh", "start", cluster.directory, *Cluster.SETTINGS)
    now = script("cluster.sh", "socket", cluster.directory)
    if now != socket:
        os.symlink(now, socket)  # PgBouncer connects to this path


FOREIGN = """
SELECT row_key ->> 'id', operation, user_id, request_id
FROM lead_audit.log, LATERAL (SELECT split_part(row_key ->> 'id', '|', 1)) AS o (owner)
WHERE (coalesce(user_id, 'nobody'), coalesce(request_id, 'r-nobody'))
  IS DISTINCT FROM (owner, 'r-' || owner)
"""


def main(seconds: float) -> int:
    global until
    logging.disable(logging.CRITICAL)  # suppresses messages about lost connections
    cluster = Cluster(f"cluster-{os.getpid()}")
    pooler = None
    try:
        database = cluster.database()
        database.query(
            "CREATE FUNCTION touch(id text) RETURNS void LANGUAGE sql AS"
            " 'INSERT INTO leads (id) VALUES (id)'"
        )
        pooler = PgBouncer(cluster.socket, "transaction", CONNECTIONS, "server_login_retry = 1")
        pooled = pooler.database(database)
        engines = {
            driver: create_engine(
                pooled.url(driver), connect_args=CONNECT_ARGS[driver], future=True
            )
            for driver in SYNC
        }
        for engine in engines.values():
            attach(engine)
        work = {
            f"{driver} transaction": (transaction, engine) for driver, engine in engines.items()
        }
        work |= {f"{driver} autocommit": (autocommit, engine) for driver, engine in engines.items()}
        if "psycopg" in engines:
            work["psycopg driver's transaction"] = (driver_transaction, engines["psycopg"])
        django_work = django_requests(pooled)
        until = time.monotonic() + seconds
        restarting = threading.Timer(seconds / 2, restart, [cluster])
        restarting.start()
        with ThreadPoolExecutor(2 * len(work) + 4) as threads:
            futures = [threads.submit(asyncio.run, all_requests(pooled))]
            for kind, (run, engine) in work.items():
                futures += [
                    threads.submit(attempts, kind, lambda run=run, engine=engine: run(engine))
                    for _ in range(2)
                ]
            futures += [threads.submit(attempts, "django", django_work) for _ in range(3)]
            for future in futures:
                future.result(seconds + 120)
        restarting.join()
        for engine in engines.values():
            engine.dispose()
        wrong.extend(map(str, database.query(FOREIGN)))
        entries, users = database.query(
            "SELECT count(*), count(DISTINCT user_id) FROM lead_audit.log"
        )[0]
        nobody = database.query("SELECT count(*) FROM lead_audit.log WHERE user_id IS NULL")[0][0]
    finally:
        if pooler is not None:
            pooler.stop()
        cluster.remove()
    for kind, count in sorted(done.items()):
        print(f"{count:8} {kind}")
    for kind, count in sorted(failed.items()):
        print(f"{count:8} failed: {kind}")
    expected = {
        *work,
        "django",
        *(f"{driver} {path}" for driver in ASYNC for path in (*PATHS, "cancelled")),
    }
    idle = sorted(kind for kind in expected if not done[kind])
    print(f"{entries} entries of {users} users, {nobody} of nobody; {len(wrong)} wrong")
    for entry in wrong[:20]:
        print(f"wrong: {entry}")
    for kind in idle:
        print(f"nothing was done: {kind}")
    return 1 if wrong or idle else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
