"""Django: its middleware, and what its connections carry. With psycopg, or with psycopg2 where LEAD_AUDIT_DJANGO_PSYCOPG2 is set."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Iterator

import pytest

from lead_audit import AuditContext, audit_context

from .cluster import Cluster, Database
from .pgbouncer import PgBouncer
from .round_trips import Counter

FORGED = {"HTTP_X_FORWARDED_FOR": "198.51.100.1"}


@pytest.fixture(scope="module")
def project(cluster: Cluster) -> Iterator[Database]:
    """The project, set up on a database of its own, with a user alice."""
    database = cluster.database()
    os.environ.update(
        DJANGO_SETTINGS_MODULE="tests.django_settings",
        LEAD_AUDIT_TEST_SOCKET=database.socket,
        LEAD_AUDIT_TEST_DATABASE=database.name,
        DJANGO_ALLOW_ASYNC_UNSAFE="",
    )
    import django

    psycopg = sys.modules["psycopg"]
    if os.environ.get("LEAD_AUDIT_DJANGO_PSYCOPG2"):
        sys.modules["psycopg"] = None  # type: ignore[assignment] # Django takes psycopg2 where there is none
    try:
        django.setup()
        from django.db import connection
        from django.db.backends.postgresql.psycopg_any import is_psycopg3
    finally:
        sys.modules["psycopg"] = psycopg
    assert is_psycopg3 is not bool(os.environ.get("LEAD_AUDIT_DJANGO_PSYCOPG2"))
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    User.objects.create_user("alice", password="secret")
    yield database
    connection.close()


@pytest.fixture
def leads(project: Database) -> Database:
    project.query("TRUNCATE leads")
    project.query("ALTER TABLE lead_audit.entry DISABLE TRIGGER USER")
    project.query("DELETE FROM lead_audit.entry")
    project.query("ALTER TABLE lead_audit.entry ENABLE TRIGGER USER")
    return project


def client(**headers: Any) -> Any:
    from django.test import Client

    return Client(**{"HTTP_USER_AGENT": "Firefox", **headers})


def alice() -> Any:
    from django.contrib.auth.models import User

    return User.objects.get(username="alice")


def test_anonymous_request_in_autocommit(leads: Database) -> None:
    client(REMOTE_ADDR="203.0.113.7", HTTP_X_REQUEST_ID="r-1", **FORGED).get("/create/1")
    client(REMOTE_ADDR="10.1.2.3", HTTP_X_REQUEST_ID="r-2", **FORGED).get("/create/2")
    assert leads.trail() == [
        ("INSERT", None, "203.0.113.7", "Firefox", "r-1"),
        ("INSERT", None, "198.51.100.1", "Firefox", "r-2"),
    ]
    assert AuditContext.current() == AuditContext()


def test_logged_in_user(leads: Database) -> None:
    http = client()
    http.force_login(alice())
    http.get("/create/1")
    client().get("/log_in/2")
    assert leads.users() == [str(alice().pk)] * 2


def test_a_response_to_nobody_does_not_depend_on_a_session(leads: Database) -> None:
    assert not client().get("/create/1").has_header("Vary")


def test_atomic_and_savepoints(leads: Database) -> None:
    http = client()
    http.force_login(alice())
    http.get("/create_atomic/1")
    entries = [entry[:2] for entry in leads.trail()]
    assert entries == [("INSERT", str(alice().pk)), ("UPDATE", str(alice().pk))]


def test_streamed_response(leads: Database) -> None:
    response = client(HTTP_X_REQUEST_ID="r-1").get("/stream/1")
    assert AuditContext.current() == AuditContext()
    assert b"".join(response.streaming_content) == b".."
    assert [entry[4] for entry in leads.trail()] == ["r-1", "r-1"]


async def test_async_views(leads: Database) -> None:
    from asgiref.sync import sync_to_async
    from django.db import connections
    from django.test import AsyncClient

    http: Any = AsyncClient()
    safari = {"user-agent": "Safari"}
    user = await sync_to_async(alice)()
    await sync_to_async(http.force_login)(user)
    await http.get("/create_async/1", headers=safari)
    response = await http.get("/stream_async/2", headers=safari)
    assert [piece async for piece in response.streaming_content] == [b".", b"."]
    await asyncio.gather(*(http.get(f"/create/{i}", headers=safari) for i in range(3, 6)))
    await sync_to_async(connections.close_all)()
    assert [entry[1:4] for entry in leads.trail()] == [(str(user.pk), "127.0.0.1", "Safari")] * 6


def test_what_may_commit_by_itself_has_no_context_and_says_so(leads: Database, caplog: pytest.LogCaptureFixture) -> None:
    from django.db import connection, transaction

    do = "DO $$ BEGIN INSERT INTO leads (id) VALUES (gen_random_uuid()); END $$"
    with AuditContext("alice"), connection.cursor() as cursor:
        cursor.execute(do)
        assert "may commit by itself" in caplog.text
        with transaction.atomic():
            cursor.execute(do)
    assert leads.users() == [None, "alice"]


def test_transactions_end_and_nothing_stays(leads: Database) -> None:
    from django.db import connection, transaction

    from .django_project import Lead

    with audit_context(user_id="alice"):
        with transaction.atomic():
            Lead.objects.create(id="1")
            with audit_context(user_id="bob"):
                Lead.objects.create(id="2")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM leads")
        Lead.objects.filter(id="1").update(email="x")
        with pytest.raises(Exception, match="duplicate key"):
            Lead.objects.create(id="2")
    Lead.objects.filter(id="2").delete()
    connection.close()  # and again on a new connection
    with audit_context(user_id="carol"), transaction.atomic():
        Lead.objects.create(id="3")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lead_audit.user_id', true)")
        assert cursor.fetchone()[0] in (None, "")
    assert leads.users() == ["alice", "bob", "alice", None, "carol"]


@pytest.fixture
def counter(leads: Database, cluster: Cluster) -> Iterator[Counter]:
    """Between Django and the server."""
    from django.db import connection

    made = Counter(cluster.socket)
    connection.close()
    connection.settings_dict["HOST"] = str(made.directory)
    yield made
    connection.close()
    connection.settings_dict["HOST"] = leads.socket
    made.close()


def test_no_further_round_trip_in_autocommit_and_one_in_a_transaction(leads: Database, counter: Counter) -> None:
    from django.db import connection, transaction

    from .django_project import Lead

    connection.ensure_connection()
    with counter.expect(1):
        Lead.objects.create(id="1")
    with counter.expect(3), transaction.atomic():
        Lead.objects.create(id="2")
    with audit_context(user_id="alice"):
        for number in range(8):
            with counter.expect(1):
                Lead.objects.create(id=f"a{number}")
            with counter.expect(1):
                assert Lead.objects.filter(id=f"a{number}").update(email="100 %") == 1
            with counter.expect(1):
                assert Lead.objects.count() == number + 3
        with counter.expect(4), transaction.atomic():
            Lead.objects.create(id="3")
    assert leads.users() == [None] * 2 + ["alice"] * (16 + 1)


def test_cursors_in_autocommit(leads: Database, caplog: pytest.LogCaptureFixture) -> None:
    from django.db import IntegrityError, ProgrammingError, connection
    from django.db.backends.postgresql.psycopg_any import is_psycopg3, sql

    leads.query("ALTER TABLE leads DROP CONSTRAINT IF EXISTS one_email")
    leads.query("ALTER TABLE leads ADD CONSTRAINT one_email UNIQUE (email) DEFERRABLE INITIALLY DEFERRED")
    insert = "INSERT INTO leads (id, email) VALUES (%s, %s) RETURNING id, '100 %%'"
    with audit_context(user_id="alice"), connection.cursor() as cursor:
        cursor.execute(insert, ["1", "a;b"])
        assert cursor.fetchall() == [("1", "100 %")] and cursor.rowcount == 1 and cursor.description[0].name == "id"
        cursor.execute("UPDATE leads SET source = '5 %' WHERE id = '1'")
        cursor.execute(b"UPDATE leads SET source = '6 %' WHERE id = '1'")
        cursor.execute(sql.SQL("UPDATE leads SET source = {} WHERE id = %(id)s").format(sql.Literal("7")), {"id": "1"})
        cursor.execute("UPDATE leads SET source = 'several'; UPDATE leads SET source = 'two'")
        cursor.executemany("INSERT INTO leads (id) VALUES (%s)", [["2"], ["3"]])
        for _ in range(8):
            with pytest.raises(IntegrityError, match="one_email"):
                cursor.execute(insert, ["late", "a;b"])
            with pytest.raises(IntegrityError, match="duplicate key"):
                cursor.execute(insert, ["2", "x"])
            with pytest.raises(ProgrammingError, match="nosuch"):
                cursor.execute("UPDATE leads SET nosuch = 1")
        assert caplog.records == []
        cursor.execute("SELECT count(*) FROM leads")
        assert cursor.fetchone() == (3,)
        if is_psycopg3:
            with pytest.raises(Exception, match="nosuch"), connection.connection.pipeline():
                cursor.execute("UPDATE leads SET source = 'lost'")
                cursor.execute("UPDATE leads SET nosuch = 1")
            with connection.connection.pipeline():
                cursor.execute("UPDATE leads SET source = 'kept' WHERE id = '1'")
    leads.query("ALTER TABLE leads DROP CONSTRAINT one_email")
    with connection.chunked_cursor() as named:
        named.execute("SELECT id FROM leads ORDER BY id")
        assert named.fetchall() == [("1",), ("2",), ("3",)]
    assert leads.users() == ["alice"] * (6 + 2 + is_psycopg3)


def test_through_pgbouncer_in_transaction_mode(leads: Database, cluster: Cluster) -> None:
    """Several threads, each with a connection to the pooler, share two to the server."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection, connections, transaction

    from .django_project import Lead

    pooler = PgBouncer(cluster.socket, "transaction", 2)
    settings = connections.settings["default"]
    connection.close()
    settings.update(HOST=str(pooler.directory), DISABLE_SERVER_SIDE_CURSORS=True)

    def work(user: str) -> None:
        try:
            for number in range(10):
                with audit_context(user_id=user):
                    lead = Lead.objects.create(id=f"{user}-{number}")
                    with transaction.atomic():
                        lead.email = user
                        lead.save()
                        assert len(list(Lead.objects.filter(email=user).iterator(chunk_size=2))) == number + 1
                        Lead.objects.filter(id=lead.id).update(is_manual=True)
                    assert len(list(Lead.objects.filter(email=user).iterator(chunk_size=2))) == number + 1
        finally:
            connections.close_all()

    users = [f"u{number}" for number in range(6)]
    try:
        with ThreadPoolExecutor(len(users)) as threads:
            list(threads.map(work, users))
    finally:
        connection.close()
        settings.update(HOST=leads.socket, DISABLE_SERVER_SIDE_CURSORS=False)
        pooler.stop()
    whose = leads.query("SELECT user_id, split_part(row_key ->> 'id', '-', 1), count(*) FROM lead_audit.log GROUP BY 1, 2 ORDER BY 1")
    assert whose == [(user, user, 30) for user in users]


def test_other_wrappers_see_what_they_saw(leads: Database) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from .django_project import Lead

    with audit_context(user_id="alice"), CaptureQueriesContext(connection) as queries:
        Lead.objects.create(id="1")
        assert Lead.objects.count() == 1
    assert len(queries) == 2
    seen = []

    def wrapper(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        if len(seen) == 1:
            context["cursor"].execute("UPDATE leads SET email = 'x' WHERE id = '1'")
            context["cursor"].execute("SELECT count(*) FROM leads")
            assert context["cursor"].fetchone() == (1,)
        result = execute(sql, params, many, context)
        assert context["cursor"].rowcount == 1  # the results are there
        return result

    with audit_context(user_id="bob"), connection.execute_wrapper(wrapper):
        Lead.objects.create(id="2")
    assert [sql.split()[0] for sql in seen] == ["INSERT", "UPDATE", "SELECT"]
    assert leads.users() == ["alice", "bob", "bob"]


def test_a_hostile_header_changes_its_own_field_only(leads: Database) -> None:
    hostile = ["x" * 5_000_000, "'; UPDATE leads SET email = 'owned'; --", "\x00\r\nx-user: root", "%s %(user_id)s $1", "\xff\xfe\xc3("]
    for number, value in enumerate(hostile):
        client(REMOTE_ADDR="10.1.2.3", HTTP_X_FORWARDED_FOR="198.51.100.1", HTTP_X_REQUEST_ID="r-1", HTTP_USER_AGENT=value).get(f"/create/a{number}")
        client(REMOTE_ADDR="10.1.2.3", HTTP_X_FORWARDED_FOR=value, HTTP_X_REQUEST_ID="r-1", HTTP_USER_AGENT="Firefox").get(f"/create/f{number}")
        client(REMOTE_ADDR="10.1.2.3", HTTP_X_FORWARDED_FOR="198.51.100.1", HTTP_X_REQUEST_ID=value, HTTP_USER_AGENT="Firefox").get(f"/create/r{number}")
    agents, addresses, ids = (leads.trail()[kind::3] for kind in range(3))
    assert [entry[3] for entry in agents] == ["x" * 500, hostile[1], "\ufffd\ufffd\ufffdx-user: root", hostile[3], "\ufffd\ufffd\ufffd("]
    assert {(*entry[:3], entry[4]) for entry in agents} == {("INSERT", None, "198.51.100.1", "r-1")}
    assert set(addresses) == {("INSERT", None, "10.1.2.3", "Firefox", "r-1")}
    assert {entry[:4] for entry in ids} == {("INSERT", None, "198.51.100.1", "Firefox")} and ids[0][4] == "x" * 255
    assert leads.query("SELECT count(*), count(email) FROM leads") == [(15, 0)]


def test_unknown_options_are_refused(project: Database) -> None:
    from django.test import override_settings

    from lead_audit.django import AuditMiddleware

    with override_settings(LEAD_AUDIT={"TRUSTED_PROXY": []}), pytest.raises(TypeError, match="TRUSTED_PROXY"):
        AuditMiddleware(lambda request: None)
