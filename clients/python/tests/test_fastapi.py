"""Tests of the client in FastAPI applications."""

from __future__ import annotations

from typing import Any, AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from fastapi import BackgroundTasks, Depends, FastAPI, Header, Request, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.middleware.base import BaseHTTPMiddleware

from lead_audit import AuditContext, identify
from lead_audit.sqlalchemy import attach
from lead_audit.starlette import AuditMiddleware

from .cluster import Database
from .drivers import ASYNC, SYNC
from .leads import Lead


def client(app: Any, address: str = "203.0.113.7") -> httpx.AsyncClient:
    """Returns an HTTP client whose connections come from `address`."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, client=(address, 4711)), base_url="http://leads"
    )


@pytest_asyncio.fixture
async def async_app(database: Database) -> AsyncIterator[FastAPI]:
    engine = create_async_engine(database.url(ASYNC[0]), pool_size=2, max_overflow=0)
    attach(engine)
    factory: Any = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
    app = FastAPI()
    app.add_middleware(
        AuditMiddleware,
        user=lambda request: request.headers.get("x-user"),
        trusted_proxies=["10.0.0.0/8"],
    )

    async def session() -> AsyncIterator[AsyncSession]:
        async with factory() as made:
            yield made

    async def later(id: str) -> None:
        async with factory() as made:
            made.add(Lead(id=id))
            await made.commit()

    @app.post("/leads/{id}")
    async def create(
        id: str, tasks: BackgroundTasks, session: AsyncSession = Depends(session)
    ) -> dict[str, str]:
        session.add(Lead(id=id))
        await session.commit()
        tasks.add_task(later, f"{id}-later")
        return {}

    yield app
    await engine.dispose()


async def test_each_request_has_its_context(async_app: FastAPI, database: Database) -> None:
    headers = {
        "x-user": "alice",
        "user-agent": "Firefox",
        "x-request-id": "r-1",
        "x-forwarded-for": "198.51.100.1",
    }
    async with client(async_app) as http:
        await http.post("/leads/1", headers=headers)
    async with client(async_app, "10.0.0.1") as http:
        await http.post("/leads/2", headers={**headers, "x-user": "bob"})
        await http.post("/leads/3", headers={"user-agent": ""})
    seen = database.trail()
    assert (
        seen[0:2] == [("INSERT", "alice", "203.0.113.7", "Firefox", "r-1")] * 2
    )  # the middleware ignores the forged header
    assert seen[2:4] == [("INSERT", "bob", "198.51.100.1", "Firefox", "r-1")] * 2
    assert [entry[1:4] for entry in seen[4:]] == [(None, "10.0.0.1", None)] * 2
    assert len(seen[4][4]) == 32 and seen[4][4] == seen[5][4]  # a generated request id
    assert AuditContext.current() == AuditContext()


@pytest.fixture(params=SYNC)
def sync_app(request: Any, database: Database) -> Iterator[FastAPI]:
    """An application with sync endpoints and dependencies, which run in threads."""
    engine = create_engine(database.url(request.param), pool_size=2, future=True)
    factory = sessionmaker(engine, future=True)
    attach(factory)
    app = FastAPI()
    app.add_middleware(AuditMiddleware)

    def get_session() -> Iterator[Session]:
        with factory() as session:
            yield session

    def get_user(x_user: str = Header(), session: Session = Depends(get_session)) -> str:
        session.query(Lead).count()
        identify(x_user)
        return x_user

    @app.post("/leads/{id}")
    def create(
        id: str, user: str = Depends(get_user), session: Session = Depends(get_session)
    ) -> dict[str, str]:
        session.add(Lead(id=id))
        session.commit()
        return {}

    yield app
    engine.dispose()


async def test_user_from_a_dependency_in_a_thread(sync_app: FastAPI, database: Database) -> None:
    async with client(sync_app) as http:
        for user in ("alice", "bob"):
            assert (
                await http.post(f"/leads/{user}", headers={"x-user": user, "user-agent": "Safari"})
            ).status_code == 200
    assert [entry[1:4] for entry in database.trail()] == [
        ("alice", "203.0.113.7", "Safari"),
        ("bob", "203.0.113.7", "Safari"),
    ]
    assert AuditContext.current() == AuditContext()


async def test_an_error_in_the_user_callable_does_not_fail_the_request(database: Database) -> None:
    app = FastAPI()
    app.add_middleware(AuditMiddleware, user=lambda request: request.headers["none"])

    @app.get("/")
    async def read(request: Request) -> dict[str, Any]:
        return {"user": AuditContext.current().user_id, "ip": AuditContext.current().user_ip}

    async with client(app) as http:
        assert (await http.get("/")).json() == {"user": None, "ip": "203.0.113.7"}


@pytest.fixture
def committing_app(database: Database) -> Iterator[FastAPI]:
    """An application with a dependency that commits, a middleware with a login, and a websocket."""
    engine = create_engine(database.url(SYNC[-1]), pool_size=2, future=True)
    attach(engine)
    app = FastAPI()

    async def log_in(request: Request, call_next: Any) -> Any:
        if "x-user" in request.headers:
            identify(request.headers["x-user"])
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=log_in)
    app.add_middleware(AuditMiddleware)  # Starlette first runs the middleware that was added last

    def get_session() -> Iterator[Session]:
        with Session(engine, future=True) as session:
            yield session
            session.commit()

    @app.post("/leads/{id}")
    def create(id: str, session: Session = Depends(get_session)) -> dict[str, str]:
        session.add(Lead(id=id))
        return {}

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        identify(await socket.receive_text())
        async for id in socket.iter_text():
            with Session(engine, future=True) as session:
                session.add(Lead(id=id))
                session.commit()
            await socket.send_text(id)

    yield app
    engine.dispose()


def test_middleware_that_identifies_and_a_session_that_commits_at_the_end(
    committing_app: FastAPI, database: Database
) -> None:
    with TestClient(committing_app, client=("203.0.113.7", 1)) as http:
        for user in ("alice", "bob"):
            http.post(f"/leads/{user}", headers={"x-user": user, "user-agent": "Safari"})
        http.post("/leads/nobody", headers={"user-agent": "Safari"})
    assert [entry[1:4] for entry in database.trail()] == [
        (user, "203.0.113.7", "Safari") for user in ("alice", "bob", None)
    ]


def test_websockets(committing_app: FastAPI, database: Database) -> None:
    http = TestClient(committing_app, client=("203.0.113.7", 1))
    headers = {"user-agent": "Firefox", "x-request-id": "r-1"}
    with (
        http.websocket_connect("/ws", headers=headers) as one,
        http.websocket_connect("/ws") as other,
    ):
        one.send_text("alice")
        other.send_text("bob")
        for socket, id in ((one, "1"), (other, "2"), (one, "3")):
            socket.send_text(id)
            assert socket.receive_text() == id
    assert [entry[1] for entry in database.trail()] == ["alice", "bob", "alice"]
    assert database.trail()[2] == ("INSERT", "alice", "203.0.113.7", "Firefox", "r-1")
