"""Tests that a lead manager behaves the same with its own audit code and with lead_audit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import MetaData, create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from lead_audit import AuditContext
from lead_audit.sqlalchemy import watch

from .cluster import Cluster, Database
from .drivers import SQLALCHEMY_14, SYNC
from .lead_manager import own_audit, with_lead_audit
from .lead_manager.application import create_application
from .lead_manager.models import Base

ADDRESS = "203.0.113.9"

# A trigger that records all writes in order, without lead_audit and without the audit code.
WITNESS = """
    CREATE TABLE mutations (n serial, operation text, lead_id text);
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        INSERT INTO mutations (operation, lead_id) VALUES (TG_OP, coalesce(NEW.id, OLD.id));
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON leads
        FOR EACH ROW EXECUTE FUNCTION witness();
    GRANT SELECT ON mutations TO app;
"""
RIGHTS = """
    GRANT USAGE ON SCHEMA lead_audit TO app;
    GRANT EXECUTE ON FUNCTION lead_audit.enable(regclass, name, boolean),
        lead_audit.history(regclass, text) TO app;
    GRANT SELECT ON lead_audit.log TO app;
"""

# Each request is a tuple (user, method, path, body). The user agent of a request contains the
# user's name.
REQUESTS: list[tuple[str, str, str, Any]] = [
    ("alice", "POST", "/leads", {"id": "a", "email": "a@example.com", "company": "A"}),
    ("bob", "POST", "/leads", {"id": "b", "email": "a@example.com"}),  # 409: the email exists
    ("nobody", "POST", "/leads", {"id": "n", "email": "n@example.com"}),  # 401: no such user
    ("bob", "PUT", "/leads/a", {"company": "Ä'; --"}),
    ("bob", "PUT", "/leads/a", {"company": "Ä'; --"}),  # the PUT changes nothing
    ("bob", "PUT", "/leads/none", {"company": "x"}),
    (
        "carol",
        "POST",
        "/import/all",
        [{"id": f"i{i}", "email": f"i{i}@example.com"} for i in range(5)],
    ),
    (
        "dave",
        "POST",
        "/import/each",
        [{"id": f"e{i}", "email": f"{n}@example.com"} for i, n in enumerate(["e", "a", "f", "e"])],
    ),
    ("alice", "POST", "/leads/i0/enrich", None),
    ("alice", "DELETE", "/leads/a", None),
    ("alice", "DELETE", "/leads/a", None),  # 404, because the lead is already deleted
    ("bob", "POST", "/leads/a/restore", None),
    ("carol", "DELETE", "/leads/i1", None),
    ("carol", "DELETE", "/leads/i2", None),
    ("dave", "POST", "/purge", None),
    ("dave", "PUT", "/leads/i3", {"email": "a@example.com"}),  # the address is taken
    ("erin", "GET", "/leads", None),
]
COPY = (
    "erin",
    "POST",
    "/import/copy",
    [{"id": f"c{i}", "email": f"c{i}@example.com"} for i in range(3)],
)


@contextmanager
def people(engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        for name in ("alice", "bob", "carol", "dave", "erin"):
            connection.execute(text("INSERT INTO users VALUES (:name)"), {"name": name})
    yield


class Visit:
    """The responses of one version, and the user of each change that the trigger recorded."""

    def __init__(
        self, app: Any, database: Optional[Database], requests: list[tuple[str, str, str, Any]]
    ) -> None:
        self.answers: list[Any] = []
        self.mutations: list[tuple[Any, ...]] = []
        with TestClient(app, client=(ADDRESS, 4711)) as http:
            self._seen(database, None)
            for user, method, path, body in requests:
                response = http.request(method, path, json=body, headers=self.headers(user))
                self.answers.append((method, path, response.status_code, response.text))
                self._seen(database, user)

    @staticmethod
    def headers(user: str) -> dict[str, str]:
        return {"x-user": user, "user-agent": f"{user}'s browser", "x-forwarded-for": "192.0.2.66"}

    def _seen(self, database: Optional[Database], user: Optional[str]) -> None:
        if database is not None:
            rows = database.query("SELECT operation, lead_id FROM mutations ORDER BY n")[
                len(self.mutations) :
            ]
            whom = (user, ADDRESS, f"{user}'s browser") if user else (None, None, None)
            self.mutations.extend((*row, *whom) for row in rows)


def entries(database: Database) -> list[tuple[Any, ...]]:
    return database.query(
        """SELECT operation, row_key ->> 'id', user_id, user_ip, user_agent FROM lead_audit.log
           WHERE outcome = 'ok' AND operation <> 'DDL' ORDER BY id"""
    )


@pytest.fixture(params=SYNC)
def driver(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def own(driver: str, cluster: Cluster) -> Iterator[tuple[Engine, Database]]:
    """Makes the version with its own audit code. The database also has the extension."""
    database = cluster.database()
    database.query("DROP EXTENSION lead_audit CASCADE; DROP TABLE leads")
    engine = create_engine(database.url(driver), future=True)
    Base.metadata.create_all(engine)
    database.query(WITNESS)
    yield engine, database
    engine.dispose()


@pytest.fixture
def new(driver: str, cluster: Cluster) -> Iterator[tuple[Engine, Database]]:
    """Makes the version with lead_audit. Its database has the extension."""
    database = cluster.database()
    database.query("DROP TABLE leads;" + RIGHTS)
    engine = create_engine(database.url(driver), future=True)
    metadata = MetaData()
    for table in Base.metadata.sorted_tables:
        if table.name != own_audit.AuditLog.__tablename__:
            table.to_metadata(metadata)
    watch(metadata.tables["leads"])
    metadata.create_all(engine)
    metadata.create_all(engine)  # the tables exist, so watch() does nothing
    metadata.drop_all(engine)
    metadata.create_all(engine)
    database.query(WITNESS)
    yield engine, database
    engine.dispose()


def test_its_behaviour_is_unchanged_and_each_write_has_its_entry(
    own: tuple[Engine, Database], new: tuple[Engine, Database]
) -> None:
    trail = ("alice", "GET", "/leads/a/trail", None)
    with people(own[0]):
        try:
            before = Visit(create_application(own[0], own_audit), own[1], [*REQUESTS, trail, COPY])
        finally:
            own_audit.remove()
    with people(new[0]):
        after = Visit(create_application(new[0], with_lead_audit), new[1], [*REQUESTS, trail, COPY])
    assert after.answers == before.answers
    assert {answer[2] for answer in after.answers} == {200, 201, 202, 204, 401, 404, 409}
    assert [mutation[:2] for mutation in after.mutations] == [
        mutation[:2] for mutation in before.mutations
    ]
    assert len(after.mutations) == 20 and entries(new[1]) == after.mutations
    assert (
        own[1].query("SELECT count(*) FROM audit_log")[0][0] < 20
    )  # the own audit code has missed bulk statements and COPY
    # All entries of one request have the same request id, and no other entry has this id.
    requests = new[1].query(
        "SELECT count(DISTINCT request_id), count(DISTINCT (request_id, user_id))"
        " FROM lead_audit.log WHERE user_id IS NOT NULL"
    )
    assert requests[0][0] == requests[0][1] > 10
    assert new[1].query("SELECT count(*) FROM lead_audit.verify()") == [(0,)]
    assert AuditContext.current() == AuditContext()


def test_in_a_transaction_that_is_rolled_back_after_each_test(new: tuple[Engine, Database]) -> None:
    """Runs the application in an outer transaction with savepoints, as many test suites do."""
    engine, database = new
    with people(engine), engine.connect() as connection:
        outer = connection.begin()
        factory, stop = _joined(connection)
        # Leaves out the requests with a background task. The session of the task overlaps with the
        # session of its request, and SQLAlchemy's recipe does not support overlapping sessions.
        requests = [request for request in REQUESTS if not request[2].endswith("/enrich")]
        visit = Visit(create_application(engine, with_lead_audit, factory), None, [*requests, COPY])
        seen = connection.execute(text("SELECT operation, lead_id FROM mutations ORDER BY n")).all()
        logged = connection.execute(
            text(
                "SELECT operation, row_key ->> 'id', user_id, user_ip, user_agent"
                " FROM lead_audit.log WHERE outcome = 'ok' AND operation <> 'DDL' ORDER BY id"
            )
        ).all()
        stop()
        outer.rollback()
    assert [answer[2] for answer in visit.answers].count(409) == 2
    assert [tuple(entry[:2]) for entry in logged] == [tuple(mutation) for mutation in seen] and len(
        seen
    ) == 19
    assert [entry[2:] for entry in logged if entry[1] == "welcome"] == [(None, None, None)]
    assert all(
        entry[2:] == (entry[2], ADDRESS, f"{entry[2]}'s browser")
        for entry in logged
        if entry[1] != "welcome"
    )
    assert {entry[2] for entry in logged if entry[1].startswith("c")} == {"erin"}
    assert entries(database) == []


def _joined(connection: Any) -> tuple[Any, Any]:
    """Returns a session factory whose sessions join the transaction of the connection.

    The function follows SQLAlchemy's recipe for the installed version of SQLAlchemy.
    """
    if not SQLALCHEMY_14:
        return sessionmaker(connection, join_transaction_mode="create_savepoint"), lambda: None
    factory = sessionmaker(connection, future=True)
    nested = [connection.begin_nested()]

    def again(session: Session, transaction: Any) -> None:
        if not nested[0].is_active:
            nested[0] = connection.begin_nested()

    event.listen(factory, "after_transaction_end", again)
    return factory, lambda: event.remove(factory, "after_transaction_end", again)


def test_its_tests_on_sqlite_run_as_before(caplog: pytest.LogCaptureFixture) -> None:
    answers = []
    for audit in (own_audit, with_lead_audit):
        engine = create_engine(
            "sqlite://",
            connect_args={"check_same_thread": False},
            poolclass=StaticPool,
            future=True,
        )
        Base.metadata.create_all(engine)
        try:
            with people(engine):
                answers.append(Visit(create_application(engine, audit), None, REQUESTS).answers)
                with Session(engine, future=True) as session:
                    with_lead_audit.before_raw(session)
        finally:
            if audit is own_audit:
                own_audit.remove()
        engine.dispose()
    assert answers[0] == answers[1]
    assert "sqlite is not PostgreSQL" in caplog.text


def test_the_address_of_starlettes_test_client_is_none() -> None:
    """Starlette's test client passes "testclient" as the address, which is no address."""
    from fastapi import FastAPI

    from lead_audit.starlette import AuditMiddleware

    app = FastAPI()
    app.add_middleware(AuditMiddleware)

    @app.get("/")
    def read() -> Any:
        return AuditContext.current().user_ip

    assert TestClient(app).get("/").json() is None
    assert TestClient(app, client=("fe80::1%eth0", 1)).get("/").json() == "fe80::1"
