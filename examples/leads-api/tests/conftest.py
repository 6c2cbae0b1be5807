"""Fixtures with a real server and database. LEADS_TEST_URL is the connection URL of a superuser."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import psycopg
import pytest
import uvicorn
from psycopg.rows import dict_row

from leads_api.__main__ import listen
from leads_api.app import create_app
from leads_api.settings import Settings
from leads_api.setup_database import READER, WRITER, set_up, url_for

DATABASE = "leads_test"
T = TypeVar("T")


def wait_for(what: Callable[[], T | None], seconds: float = 20) -> T:
    """Calls `what` until its result is true, and returns this result."""
    until = time.monotonic() + seconds
    while True:
        if found := what():
            return found
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def superuser_url() -> str:
    return os.environ["LEADS_TEST_URL"]


@contextmanager
def serving(superuser_url: str, database: str) -> Iterator[str]:
    """Runs the application on the database `database`, and yields the application's URL.

    The application trusts a proxy on this machine, so that a test can choose the client's
    address."""
    writer, reader = (
        url_for(superuser_url, role, database).render_as_string(hide_password=False)
        for role in (WRITER, READER)
    )
    app = create_app(
        Settings(writer, reader, secret="only for the tests", trusted_proxies=("127.0.0.1/32",))
    )
    listener = listen(None)
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, proxy_headers=False, log_level="warning"))
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def server(superuser_url: str) -> Iterator[str]:
    assert set_up(superuser_url, DATABASE), "the database was there already"
    with serving(superuser_url, DATABASE) as url:
        yield url


@dataclass
class Database:
    """The database as a superuser sees it, for comparison with the application's responses."""

    connection: psycopg.Connection[dict[str, Any]]

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        return self.connection.execute(query, values or None).fetchall()

    def entries(self, lead_id: str) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM lead_audit.history('leads', %s)", lead_id)

    def tamper(self, entry_id: int) -> None:
        """Changes an entry.

        Only a superuser can change an entry, after he has disabled the log's triggers.
        """
        with self.connection.transaction():
            self.connection.execute("ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL")
            self.connection.execute(
                "UPDATE lead_audit.entry SET user_id = 'nobody' WHERE id = %s", [entry_id]
            )
            self.connection.execute(
                "ALTER TABLE lead_audit.entry ENABLE ALWAYS TRIGGER append_only"
            )


@pytest.fixture(scope="session")
def database(superuser_url: str, server: str) -> Iterator[Database]:
    with psycopg.connect(
        superuser_url, dbname=DATABASE, autocommit=True, row_factory=dict_row
    ) as connection:
        yield Database(connection)


@dataclass
class Person:
    client: httpx.Client
    name: str

    def create(self, **lead: object) -> dict[str, Any]:
        answer = self.client.post("/api/leads", json=lead)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def edit(self, seen: dict[str, Any], **changes: object) -> httpx.Response:
        return self.client.patch(f"/api/leads/{seen['id']}", json=changes, headers=_if_match(seen))

    def delete(self, seen: dict[str, Any]) -> httpx.Response:
        return self.client.delete(f"/api/leads/{seen['id']}", headers=_if_match(seen))

    def restore(self, seen: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"/api/leads/{seen['id']}/restore", headers=_if_match(seen))

    def history(self, lead_id: str) -> list[dict[str, Any]]:
        """Returns the events of a lead from the JSON interface, from the oldest to the newest."""
        answer = self.client.get(f"/api/leads/{lead_id}/history")
        assert answer.status_code == 200, answer.text
        return answer.json()[::-1]  # type: ignore[no-any-return]


def _if_match(seen: dict[str, Any]) -> dict[str, str]:
    return {"If-Match": f'"{seen["version"]}"'}


def person(server: str, name: str, address: str) -> Person:
    client = httpx.Client(
        base_url=server, headers={"User-Agent": f"{name}'s browser", "X-Forwarded-For": address}
    )
    assert client.post("/login", data={"user": name}).status_code == 303
    return Person(client, name)


@pytest.fixture(scope="session")
def maria(server: str) -> Person:
    return person(server, "maria", "203.0.113.7")


@pytest.fixture(scope="session")
def tom(server: str) -> Person:
    return person(server, "tom", "2001:db8::23")
