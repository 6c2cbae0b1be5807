"""Tests of the client for Django: the middleware for requests and the hook for statements.

The tests use psycopg 3, or psycopg2 if LEAD_AUDIT_DJANGO_PSYCOPG2 is set.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Iterator

import pytest

from lead_audit import AuditContext, audit_context

from .cluster import Cluster, Database, StatementLog
from .pgbouncer import PgBouncer
from .round_trips import Counter

FORGED = {"HTTP_X_FORWARDED_FOR": "198.51.100.1"}


@pytest.fixture(scope="module")
def project(cluster: Cluster) -> Iterator[Database]:
    """Sets up the Django project on its own database, with the user `alice`."""
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
        sys.modules["psycopg"] = None  # type: ignore[assignment] # then Django uses psycopg2
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


def test_what_may_commit_by_itself_has_no_context_and_says_so(
    leads: Database, caplog: pytest.LogCaptureFixture
) -> None:
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
    connection.close()  # the next statement opens a new connection
    with audit_context(user_id="carol"), transaction.atomic():
        Lead.objects.create(id="3")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lead_audit.user_id', true)")
        assert cursor.fetchone()[0] in (None, "")
    assert leads.users() == ["alice", "bob", "alice", None, "carol"]


@pytest.fixture
def counter(leads: Database, cluster: Cluster) -> Iterator[Counter]:
    """Makes a counter of the round trips between Django and the server."""
    from django.db import connection

    made = Counter(cluster.socket)
    connection.close()
    connection.settings_dict["HOST"] = str(made.directory)
    yield made
    connection.close()
    connection.settings_dict["HOST"] = leads.socket
    made.close()


def test_no_further_round_trip_in_autocommit_and_one_in_a_transaction(
    leads: Database, counter: Counter
) -> None:
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
    leads.query(
        "ALTER TABLE leads ADD CONSTRAINT one_email UNIQUE (email) DEFERRABLE INITIALLY DEFERRED"
    )
    insert = "INSERT INTO leads (id, email) VALUES (%s, %s) RETURNING id, '100 %%'"
    with audit_context(user_id="alice"), connection.cursor() as cursor:
        cursor.execute(insert, ["1", "a;b"])
        assert (
            cursor.fetchall() == [("1", "100 %")]
            and cursor.rowcount == 1
            and cursor.description[0].name == "id"
        )
        cursor.execute("UPDATE leads SET source = '5 %' WHERE id = '1'")
        cursor.execute(b"UPDATE leads SET source = '6 %' WHERE id = '1'")
        cursor.execute(
            sql.SQL("UPDATE leads SET source = {} WHERE id = %(id)s").format(sql.Literal("7")),
            {"id": "1"},
        )
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
    """Each thread has its own connection to PgBouncer. All threads share two server connections."""
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
                        assert (
                            len(list(Lead.objects.filter(email=user).iterator(chunk_size=2)))
                            == number + 1
                        )
                        Lead.objects.filter(id=lead.id).update(is_manual=True)
                    assert (
                        len(list(Lead.objects.filter(email=user).iterator(chunk_size=2)))
                        == number + 1
                    )
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
    whose = leads.query(
        "SELECT user_id, split_part(row_key ->> 'id', '-', 1), count(*) FROM lead_audit.log"
        " GROUP BY 1, 2 ORDER BY 1"
    )
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
        assert context["cursor"].rowcount == 1  # other wrappers see the result of the statement
        return result

    with audit_context(user_id="bob"), connection.execute_wrapper(wrapper):
        Lead.objects.create(id="2")
    assert [sql.split()[0] for sql in seen] == ["INSERT", "UPDATE", "SELECT"]
    assert leads.users() == ["alice", "bob", "bob"]


def test_a_hostile_header_changes_its_own_field_only(leads: Database) -> None:
    hostile = [
        "x" * 5_000_000,
        "'; UPDATE leads SET email = 'owned'; --",
        "\x00\r\nx-user: root",
        "%s %(user_id)s $1",
        "\xff\xfe\xc3(",
    ]
    for number, value in enumerate(hostile):
        client(
            REMOTE_ADDR="10.1.2.3",
            HTTP_X_FORWARDED_FOR="198.51.100.1",
            HTTP_X_REQUEST_ID="r-1",
            HTTP_USER_AGENT=value,
        ).get(f"/create/a{number}")
        client(
            REMOTE_ADDR="10.1.2.3",
            HTTP_X_FORWARDED_FOR=value,
            HTTP_X_REQUEST_ID="r-1",
            HTTP_USER_AGENT="Firefox",
        ).get(f"/create/f{number}")
        client(
            REMOTE_ADDR="10.1.2.3",
            HTTP_X_FORWARDED_FOR="198.51.100.1",
            HTTP_X_REQUEST_ID=value,
            HTTP_USER_AGENT="Firefox",
        ).get(f"/create/r{number}")
    agents, addresses, ids = (leads.trail()[kind::3] for kind in range(3))
    assert [entry[3] for entry in agents] == [
        "x" * 500,
        hostile[1],
        "\ufffd\ufffd\ufffdx-user: root",
        hostile[3],
        "\ufffd\ufffd\ufffd(",
    ]
    assert {(*entry[:3], entry[4]) for entry in agents} == {("INSERT", None, "198.51.100.1", "r-1")}
    assert set(addresses) == {("INSERT", None, "10.1.2.3", "Firefox", "r-1")}
    assert {entry[:4] for entry in ids} == {("INSERT", None, "198.51.100.1", "Firefox")} and ids[0][
        4
    ] == "x" * 255
    assert leads.query("SELECT count(*), count(email) FROM leads") == [(15, 0)]


def test_unknown_options_are_refused(project: Database) -> None:
    from django.test import override_settings

    from lead_audit.django import AuditMiddleware

    with (
        override_settings(LEAD_AUDIT={"TRUSTED_PROXY": []}),
        pytest.raises(TypeError, match="TRUSTED_PROXY"),
    ):
        AuditMiddleware(lambda request: None)


def in_a_thread(work: Any) -> None:
    """Runs `work` in a new thread, which has its own database connections."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connections

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(run).result(60)


def test_a_connection_that_opens_inside_of_a_wrapper(leads: Database) -> None:
    """Uses the query log of Django's manual. At its end, the query log removes the last wrapper."""
    from django.db import connection

    from .django_project import Lead

    seen: list[str] = []

    def log(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql.split()[0])
        return execute(sql, params, many, context)

    def work() -> None:
        for number in range(3):
            with audit_context(user_id="alice"), connection.execute_wrapper(log):
                Lead.objects.create(id=f"logged {number}")
            assert log not in connection.execute_wrappers
            with audit_context(user_id="bob"):
                Lead.objects.create(id=f"alone {number}")
            if number == 1:
                connection.close()

    in_a_thread(work)
    assert seen == ["INSERT"] * 3
    assert leads.users() == ["alice", "bob"] * 3


def username(request: Any) -> Any:
    return request.user.get_username() or None


async def username_async(request: Any) -> Any:
    from asgiref.sync import sync_to_async

    return await sync_to_async(username)(request)


@pytest.fixture
def watched_users(leads: Database) -> Iterator[Database]:
    leads.query("SELECT lead_audit.enable('auth_user')")
    yield leads
    leads.query("SELECT lead_audit.disable('auth_user')")


def entries(database: Database) -> list[Any]:
    return database.query(
        "SELECT table_name, operation, user_id FROM lead_audit.log"
        " WHERE operation IN ('INSERT', 'UPDATE') ORDER BY id"
    )


@pytest.mark.parametrize("user", [None, username, username_async, "tests.test_django.username"])
def test_a_login_has_the_user_of_the_setting(watched_users: Database, user: Any) -> None:
    from django.test import override_settings

    with override_settings(LEAD_AUDIT={"USER": user} if user else {}):
        client().get("/log_in/1")
    name = "alice" if user else str(alice().pk)
    assert entries(watched_users) == [("auth_user", "UPDATE", name), ("leads", "INSERT", name)]
    assert AuditContext.current() == AuditContext()


def test_a_login_outside_of_a_request_is_nobodys(leads: Database) -> None:
    """Outside of a request, a login sets no user.

    If the login set the user, all later statements of the thread would have this user.
    """
    client().force_login(alice())
    assert AuditContext.current() == AuditContext()


def test_after_a_logout_there_is_no_user(leads: Database) -> None:
    http = client()
    http.force_login(alice())
    http.get("/log_out/1")
    assert leads.users() == [str(alice().pk), None]


@pytest.mark.parametrize("user", [None, username])
def test_django_rest_framework(leads: Database, user: Any) -> None:
    pytest.importorskip("rest_framework")
    from django.test import override_settings

    with override_settings(LEAD_AUDIT={"USER": user} if user else {}):
        assert client(HTTP_X_USER="alice").get("/rest/1").status_code == 200
    assert leads.users() == [None, "alice" if user else str(alice().pk)]


def test_who_counts_more(leads: Database) -> None:
    """identify() in a view overrides the default of USER.

    A function in the setting USER overrides identify().
    """
    from django.test import override_settings

    http = client()
    http.force_login(alice())
    http.get("/identified/1")
    with override_settings(LEAD_AUDIT={"USER": username}):
        http = client()  # the middleware reads the setting when it is created
        http.force_login(alice())
        http.get("/identified/2")
        client().get("/identified/3")
    assert leads.users() == ["by the view", "alice", "by the view"]


def test_an_error_in_the_user_callable_does_not_fail_the_request(
    leads: Database, caplog: pytest.LogCaptureFixture
) -> None:
    from django.test import override_settings

    with override_settings(LEAD_AUDIT={"USER": lambda request: request.nosuch}):
        assert client(HTTP_X_REQUEST_ID="r-1").get("/create/1").status_code == 200
    assert leads.trail()[0][1::3] == (None, "r-1") and "is not known" in caplog.text


def test_atomic_requests(leads: Database, cluster: Cluster) -> None:
    """A transaction has only one set_config, although it includes queries that find the user."""
    from django.db import connection

    http = client()
    http.force_login(alice())
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        http.get("/count_and_create/1")
        statements = StatementLog(cluster.log)
        http.get("/count_and_create/2")
        assert statements.statements().count("set_config") == 1
        http.get("/create_atomic/3")
        client().get("/log_in/4")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert leads.users() == [str(alice().pk)] * (2 + 2 + 2 + 1)


@pytest.mark.parametrize("user", [None, username, username_async])
async def test_async_views_find_their_user(leads: Database, user: Any) -> None:
    from asgiref.sync import sync_to_async
    from django.db import connections
    from django.test import AsyncClient, override_settings

    http: Any = AsyncClient()
    found = await sync_to_async(alice)()
    await sync_to_async(http.force_login)(found)
    with override_settings(LEAD_AUDIT={"USER": user} if user else {}):

        async def requests() -> None:
            await http.get("/create_async/1")
            await asyncio.gather(
                *(http.get(f"/{'create' if i % 2 else 'create_async'}/{i}") for i in range(2, 6))
            )
            response = await http.get("/stream_async/6")
            assert [piece async for piece in response.streaming_content] == [b".", b"."]

        await asyncio.wait_for(requests(), 30)
    await sync_to_async(connections.close_all)()
    assert leads.users() == ["alice" if user else str(found.pk)] * 7


def test_identify_in_a_streaming_response(leads: Database) -> None:
    response = client(HTTP_X_REQUEST_ID="r-1").get("/stream_identified/1")
    assert b"".join(response.streaming_content) == b"..."
    assert [entry[1::3] for entry in leads.trail()] == [("streamer", "r-1")] * 3
    assert AuditContext.current() == AuditContext()


async def test_identify_in_an_async_streaming_response(leads: Database) -> None:
    from asgiref.sync import sync_to_async
    from django.db import connections
    from django.test import AsyncClient

    http: Any = AsyncClient()
    response = await http.get("/stream_identified_async/1")
    assert [piece async for piece in response.streaming_content] == [b"."] * 3
    await sync_to_async(connections.close_all)()
    assert leads.users() == ["streamer"] * 3
    assert AuditContext.current() == AuditContext()


def test_a_file_is_left_to_the_server(project: Database) -> None:
    """The web server sends the file with wsgi.file_wrapper."""
    from django.http import FileResponse
    from django.test import RequestFactory

    from lead_audit.django import AuditMiddleware

    with open(__file__, "rb") as file:
        response = AuditMiddleware(lambda request: FileResponse(file))(RequestFactory().get("/"))
        assert response.file_to_stream is file
        response.close()


def test_a_pool(leads: Database, cluster: Cluster) -> None:
    """With the connection pool of Django 5.1 and psycopg, threads share database connections."""
    import django
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if django.VERSION < (5, 1) or not is_psycopg3:
        pytest.skip("Django has pools from 5.1 on, with psycopg")
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection, connections, transaction

    from .django_project import Lead

    settings = connections.settings["default"]
    before = settings["OPTIONS"]
    connection.close()
    settings["OPTIONS"] = {**before, "pool": {"min_size": 1, "max_size": 2, "timeout": 60}}

    def work(user: str) -> None:
        for number in range(10):
            with audit_context(user_id=user):
                Lead.objects.create(id=f"{user}-{number}")
                with transaction.atomic():
                    Lead.objects.filter(id=f"{user}-{number}").update(email=user)
            connections.close_all()  # returns the connections to the pool

    def close_pool() -> None:
        connection.close_pool()  # type: ignore[attr-defined]

    users = [f"u{number}" for number in range(6)]
    try:
        with ThreadPoolExecutor(len(users)) as threads:
            list(threads.map(work, users))
        in_a_thread(close_pool)
    finally:
        settings["OPTIONS"] = before
    whose = leads.query(
        "SELECT user_id, split_part(row_key ->> 'id', '-', 1), count(*) FROM lead_audit.log"
        " GROUP BY 1, 2 ORDER BY 1"
    )
    assert whose == [(user, user, 20) for user in users]


def test_a_savepoint_that_a_raw_cursor_rolls_back(leads: Database) -> None:
    from django.db import connection, transaction

    def insert(id: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO leads (id) VALUES (%s)", (id,))

    for number in range(2):
        with transaction.atomic():
            raw = connection.connection.cursor()
            raw.execute("SAVEPOINT a")
            with audit_context(user_id="alice"):
                insert("lost")
            raw.execute("ROLLBACK TO a")
            with audit_context(user_id="alice"):
                insert(f"1 {number}")
            with audit_context(user_id="bob"):
                insert(f"2 {number}")
    assert leads.users() == ["alice", "bob"] * 2


def test_several_statements(leads: Database) -> None:
    from django.db import connection, transaction

    with audit_context(user_id="alice"), connection.cursor() as cursor:
        cursor.execute(
            "BEGIN; INSERT INTO leads (id) VALUES ('1'); COMMIT;"
            " INSERT INTO leads (id) VALUES ('2')"
        )
        cursor.execute("SET LOCAL statement_timeout = '5s'; INSERT INTO leads (id) VALUES ('3')")
        with transaction.atomic():
            cursor.execute(
                "SAVEPOINT a; INSERT INTO leads (id) VALUES ('4'); ROLLBACK TO a;"
                " INSERT INTO leads (id) VALUES ('5')"
            )
    assert leads.users() == ["alice"] * 4


def test_what_is_missing_is_reported_or_refused(
    leads: Database, caplog: pytest.LogCaptureFixture
) -> None:
    from django.test import override_settings

    from lead_audit import MissingContext

    from .django_project import Lead

    with override_settings(LEAD_AUDIT={}):
        for number in range(2):
            Lead.objects.create(id=f"{number}")
    assert (
        caplog.text.count("without an audit context") == 1
        and "INSERT" in caplog.text
        and __file__ in caplog.text
    )
    with override_settings(LEAD_AUDIT={"ON_MISSING": "raise"}):
        with pytest.raises(MissingContext, match="INSERT INTO"):
            Lead.objects.create(id="refused")
        with audit_context(user_id="alice"):
            Lead.objects.create(id="3")
    assert leads.users() == [None, None, "alice"]
