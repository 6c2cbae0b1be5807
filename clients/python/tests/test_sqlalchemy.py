"""Tests of the context in transactions of SQLAlchemy, with the sync drivers."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

from lead_audit import AuditContext, audit_context
from lead_audit.sqlalchemy import apply_context, attach, detach

from .cluster import Database, StatementLog
from .drivers import SQLALCHEMY_14, SYNC
from .leads import Lead

INSERT = text("INSERT INTO leads (id) VALUES (:id)")
ALICE = AuditContext("alice", "203.0.113.7", "Firefox", "r-1")
BOB = AuditContext("bob", "2001:db8::7", "Safari", "r-2")


@pytest.fixture(params=SYNC)
def engine(request: Any, database: Database) -> Iterator[Engine]:
    made = create_engine(database.url(request.param), pool_size=1, max_overflow=0, future=True)
    attach(made)
    yield made
    made.dispose()


def insert(connection: Any, id: str) -> None:
    connection.execute(INSERT, {"id": id})


def test_each_transaction_has_the_context_it_runs_in(engine: Engine, database: Database) -> None:
    with ALICE, engine.begin() as connection:
        insert(connection, "1")
    with BOB, engine.begin() as connection:
        insert(connection, "2")
        insert(connection, "3")
    with engine.begin() as connection:
        insert(connection, "4")
    assert database.trail() == [
        ("INSERT", "alice", "203.0.113.7", "Firefox", "r-1"),
        ("INSERT", "bob", "2001:db8::7", "Safari", "r-2"),
        ("INSERT", "bob", "2001:db8::7", "Safari", "r-2"),
        ("INSERT", None, None, None, None),
    ]


def test_orm_and_bulk_statements(engine: Engine, database: Database) -> None:
    factory = sessionmaker(engine, future=True)
    with audit_context(user_id="alice"), factory() as session:
        session.add_all([Lead(id=str(i)) for i in range(3)])
        session.commit()
        session.query(Lead).update({"source": "web"})
        session.commit()
    assert database.users() == ["alice"] * 6


def test_context_that_changes_in_mid_transaction(engine: Engine, database: Database) -> None:
    with engine.begin() as connection:
        insert(connection, "1")
        with ALICE:
            insert(connection, "2")
            with audit_context(user_id="system"):
                insert(connection, "3")
            insert(connection, "4")
        insert(connection, "5")
    assert database.users() == [None, "alice", "system", "alice", None]
    assert database.trail()[2] == ("INSERT", "system", "203.0.113.7", "Firefox", "r-1")


def test_savepoints(engine: Engine, database: Database) -> None:
    with engine.begin() as connection:
        with ALICE:
            insert(connection, "1")
            savepoint = connection.begin_nested()
            with BOB:
                insert(connection, "lost")
                savepoint.rollback()
            insert(connection, "2")  # the rollback has also restored the earlier context
            with connection.begin_nested(), BOB:
                insert(connection, "3")
            insert(connection, "4")
        with BOB:
            connection.execute(text('SAVEPOINT "By hand"'))
            insert(connection, "5")
            AuditContext.set(ALICE)
            insert(connection, "lost")
            connection.execute(text('/* so */ ROLLBACK WORK TO "By hand"'))
            insert(connection, "6")
    assert database.users() == ["alice", "alice", "bob", "alice", "alice"]


def test_one_round_trip_and_none_where_nothing_changes(
    engine: Engine, database: Database, statement_log: StatementLog
) -> None:
    with engine.begin():
        pass
    before = len(statement_log.statements())  # the dialect has already run its own queries
    with engine.begin() as connection:
        insert(connection, "1")
    with ALICE, engine.begin() as connection:
        insert(connection, "2")
        insert(connection, "3")
        with connection.begin_nested() as savepoint:
            insert(connection, "4")
            savepoint.rollback()
        insert(connection, "5")
    with BOB, engine.begin() as connection:
        with ALICE:
            pass
        insert(connection, "6")
    assert statement_log.statements()[before:] == (
        ["BEGIN", "INSERT", "COMMIT"]
        + [
            "BEGIN",
            "set_config",
            "INSERT",
            "INSERT",
            "SAVEPOINT",
            "INSERT",
            "ROLLBACK",
            "INSERT",
            "COMMIT",
        ]
        + ["BEGIN", "set_config", "INSERT", "COMMIT"]
    )


def test_nothing_is_left_on_a_pooled_connection(engine: Engine, database: Database) -> None:
    for isolation in ("READ COMMITTED", "AUTOCOMMIT"):
        with ALICE, engine.execution_options(isolation_level=isolation).connect() as connection:
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            insert(connection, isolation)
            # The block does not commit, so the pool rolls back the transaction.
        with engine.connect() as connection:
            assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == backend
            for name in ("user_id", "user_ip", "user_agent", "request_id"):
                assert connection.execute(
                    text(f"SELECT current_setting('lead_audit.{name}', true)")
                ).scalar() in (None, "")
        raw = engine.raw_connection()  # this connection bypasses the client
        raw.cursor().execute("INSERT INTO leads (id) VALUES (%s)", (f"raw {isolation}",))
        raw.commit()
        raw.close()
    assert database.users() == [None, "alice", None]  # the first transaction was rolled back


def test_a_pool_that_does_not_roll_back(database: Database) -> None:
    """The pool's next user is in the transaction of the previous user, but has its own context."""
    engine = create_engine(
        database.url(SYNC[-1]), pool_size=1, max_overflow=0, pool_reset_on_return=None, future=True
    )
    attach(engine)
    with ALICE:
        raw = Connection(engine)
        insert(raw, "1")
        raw.connection.close()  # close() returns the connection to the pool within its transaction
    with engine.connect() as connection:
        insert(connection, "2")
        connection.commit()
    engine.dispose()
    assert database.users() == ["alice", None]


def test_reconnect(engine: Engine, database: Database) -> None:
    with ALICE:
        with engine.connect() as connection:
            insert(connection, "lost")
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            database.query("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(exc.DBAPIError) as lost:
                insert(connection, "lost too")
            assert lost.value.connection_invalidated
            connection.rollback()
            insert(connection, "1")
            connection.commit()
        with engine.connect() as connection:  # the server ends this connection below
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        database.query("SELECT pg_terminate_backend(%s)", [pid])
        with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError) as lost:
                insert(connection, "lost too")
            assert lost.value.connection_invalidated
            connection.rollback()
            insert(connection, "2")
            connection.commit()
    assert [entry[1:] for entry in database.trail()] == [ALICE.settings()] * 2


def test_errors_are_those_of_the_statement(engine: Engine, database: Database) -> None:
    with ALICE, engine.connect() as connection:
        insert(connection, "1")
        with pytest.raises(exc.IntegrityError):
            insert(connection, "1")
        with BOB, pytest.raises(exc.DBAPIError, match="transaction is aborted") as aborted:
            insert(connection, "2")
        assert (
            aborted.value.statement is not None and "INSERT INTO leads" in aborted.value.statement
        )
        connection.rollback()
        insert(connection, "3")
        connection.commit()
    assert database.users() == ["alice"]


def test_statements_that_must_come_first(engine: Engine, database: Database) -> None:
    database.query("CREATE TABLE counters (a integer); ALTER TABLE counters OWNER TO app")
    with ALICE, engine.begin() as connection:
        connection.execute(text("-- first\nSET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        connection.execute(text("SET TRANSACTION READ WRITE"))
        insert(connection, "1")
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "serializable"
    with ALICE, engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
        connection.execute(text("LOCK TABLE leads"))
        database.query("INSERT INTO counters VALUES (1)")
        # If the client set the context before LOCK, the transaction's snapshot would be older than
        # the row of counters.
        assert connection.execute(text("SELECT a FROM counters")).scalar() == 1
        insert(connection, "2")
    assert database.users() == ["alice", "alice"]


def test_commit_by_hand(engine: Engine, database: Database) -> None:
    with ALICE, engine.connect() as connection:
        insert(connection, "1")
        connection.connection.commit()  # commits with the driver's own method
        insert(connection, "2")
        connection.execute(text("COMMIT"))
        insert(connection, "3")
        connection.commit()
        insert(connection, "4")
        connection.execute(text("RESET ALL"))
        insert(connection, "5")
        connection.commit()
    assert database.users() == ["alice"] * 5


def test_two_phase(engine: Engine, database: Database) -> None:
    with ALICE, engine.connect() as connection:
        transaction = connection.begin_twophase()
        insert(connection, "1")
        transaction.prepare()
        transaction.commit()
        with BOB, connection.begin():
            insert(connection, "2")
    assert database.users() == ["alice", "bob"]


def test_server_side_cursor(engine: Engine, database: Database) -> None:
    database.query("INSERT INTO leads (id) SELECT g::text FROM generate_series(1, 300) g")
    with ALICE, engine.connect() as connection:
        rows = connection.execution_options(stream_results=True).execute(
            text("SELECT id FROM leads")
        )
        assert len(rows.fetchmany(10)) == 10
        assert len(rows.all()) == 290
        insert(connection.execution_options(stream_results=False), "x")
        connection.commit()
    assert database.users()[-1] == "alice"


def test_values_that_the_database_would_refuse(engine: Engine, database: Database) -> None:
    with (
        AuditContext(
            "x" * 1000, "not an address", "é" * 10**6 + "\0", "a\0b\n'; DROP TABLE leads; --"
        ),
        engine.begin() as connection,
    ):
        insert(connection, "1")
    assert database.trail()[0][1:] == (
        "x" * 255,
        None,
        "é" * 500,
        "a\ufffdb\ufffd'; DROP TABLE leads; --",
    )


@pytest.mark.parametrize("driver", SYNC)
def test_values_that_the_client_encoding_does_not_have(driver: str, database: Database) -> None:
    engine = create_engine(database.url(driver) + "&client_encoding=latin1", future=True)
    attach(engine)
    with audit_context(user_id="żółw %s %(id)s $1 \\"), engine.begin() as connection:
        insert(connection, "1")
    engine.dispose()
    assert database.users() == ["???w %s %(id)s $1 \\"]


def test_raw_connections(engine: Engine, database: Database) -> None:
    with ALICE, engine.begin() as connection:
        apply_context(connection)
        cursor: Any = connection.connection.cursor()
        cursor.execute("INSERT INTO leads (id) VALUES (%s)", ("1",))
    with ALICE, Session(engine) as session:
        apply_context(session)
        raw: Any = session.connection().connection.cursor()
        raw.execute("INSERT INTO leads (id) VALUES (%s)", ("2",))
        session.commit()
    with BOB:
        pooled: Any = engine.raw_connection()
        apply_context(pooled)
        pooled.cursor().execute("INSERT INTO leads (id) VALUES ('3')")
        pooled.commit()
        pooled.cursor().execute("INSERT INTO leads (id) VALUES ('4')")
        pooled.commit()
        pooled.close()
    assert database.users() == ["alice", "alice", "bob", None]


@pytest.mark.parametrize(
    "kind", ["engine", "sessionmaker", "scoped_session", "late bind", "binds", "get_bind"]
)
def test_what_can_be_attached_to(kind: str, database: Database) -> None:
    engine = create_engine(database.url(SYNC[-1]), future=True)
    factory: Any = sessionmaker(engine, future=True)
    if kind == "engine":
        attach(engine)
    elif kind == "sessionmaker":
        attach(factory)
        attach(factory)
    elif kind == "scoped_session":
        factory = scoped_session(factory)
        attach(factory)
    elif kind == "binds":
        factory = sessionmaker(binds={Lead: engine}, future=True)
        attach(factory)
    elif kind == "get_bind":

        class Routed(Session):
            def get_bind(self, *_: Any, **__: Any) -> Any:
                return engine

        factory = sessionmaker(class_=Routed, future=True)
        attach(factory)
    else:
        unbound: Any = sessionmaker(future=True)
        attach(unbound)
        factory = lambda: unbound(bind=engine.execution_options(compiled_cache=None))  # noqa: E731
    with ALICE:
        session = factory()
        session.add(Lead(id="1"))
        session.commit()
        session.close()
    engine.dispose()
    assert database.users() == ["alice"]


def test_detach(engine: Engine, database: Database) -> None:
    factory: Any = sessionmaker(engine, future=True)
    attach(factory)
    detach(factory)
    detach(factory)
    with ALICE, factory() as session:
        session.add(Lead(id="1"))
        session.commit()
    assert database.users() == [None]


def test_what_is_not_postgresql_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine("sqlite://")
    attach(engine)
    with ALICE, engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        apply_context(connection)
    apply_context(engine.raw_connection())
    assert "sqlite is not PostgreSQL" in caplog.text and "does not know the driver" in caplog.text
    detach(engine)
    with pytest.raises(TypeError, match="an Engine, an AsyncEngine or a session factory"):
        attach(object())


def test_other_listeners_see_what_they_saw(engine: Engine, database: Database) -> None:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    with ALICE, engine.begin() as connection:
        insert(connection, "1")
    assert len([statement for statement in seen if "INSERT" in statement]) == len(seen) == 1


def test_threads(database: Database) -> None:
    from concurrent.futures import ThreadPoolExecutor

    engine = create_engine(
        database.url(SYNC[-1]), pool_size=3, max_overflow=0, poolclass=QueuePool, future=True
    )
    attach(engine)

    def work(user: str) -> None:
        with AuditContext(user):
            with engine.begin() as connection:
                insert(connection, user)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [f"user-{i}" for i in range(60)]))
    engine.dispose()
    assert (
        len(database.query("SELECT 1 FROM lead_audit.log WHERE user_id = row_key ->> 'id'")) == 60
    )


@pytest.mark.skipif(
    not SQLALCHEMY_14, reason="an Engine of SQLAlchemy 1.4 that is not of the future"
)
def test_engine_that_commits_by_itself(database: Database) -> None:
    """The engine begins a transaction itself, and commits it after a statement that can write."""
    engine: Any = create_engine(database.url("psycopg2"), pool_size=1, max_overflow=0)
    attach(engine)
    with ALICE:
        engine.execute("INSERT INTO leads (id) VALUES ('1')")
        with engine.connect() as connection:
            insert(connection, "2")
            connection.execute(text("SELECT 1"))
            with BOB:
                insert(connection, "3")
            insert(connection, "4")
            with connection.begin():
                insert(connection, "5")
    with engine.connect() as connection:
        insert(connection, "6")
    engine.dispose()
    assert database.users() == ["alice", "alice", "bob", "alice", "alice", None]


@pytest.mark.skipif(SQLALCHEMY_14, reason="SQLAlchemy 1.4 has no psycopg")
def test_a_savepoint_of_the_drivers_own(database: Database) -> None:
    """psycopg 3 makes a savepoint for its own `transaction()` within a transaction."""
    import psycopg

    engine = create_engine(database.url("psycopg"), pool_size=1, max_overflow=0, future=True)
    attach(engine)
    for _ in range(2):  # in the second pass, the connection comes from the pool
        with engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with ALICE:
                insert(connection, f"1 {_}")
                connection.execute(text("SAVEPOINT a"))
            with driver.transaction(force_rollback=True), BOB:
                insert(connection, "lost")
            with BOB:
                insert(connection, f"2 {_}")
            with driver.transaction() as transaction:
                with ALICE:
                    insert(connection, "lost")
                    connection.execute(text("SAVEPOINT a"))
                raise psycopg.Rollback(transaction)
            with ALICE:
                insert(connection, f"3 {_}")
                connection.execute(text("ROLLBACK TO a"))
                insert(connection, f"4 {_}")
    engine.dispose()
    assert database.users() == ["alice", "alice"] * 2


def test_a_rollback_of_the_drivers_own(engine: Engine, database: Database) -> None:
    """After the driver's own rollback(), the connection continues in a new transaction."""
    with ALICE, engine.connect() as connection:
        insert(connection, "lost")
        driver: Any = connection.connection.dbapi_connection
        driver.rollback()
        driver.cursor().execute("SELECT 1")
        insert(connection, "1")
        connection.commit()
    assert database.users() == ["alice"]


def test_listeners_that_are_added_later_see_the_statement(
    engine: Engine, database: Database
) -> None:
    """One listener runs the statement itself, and one listener was added before attach()."""
    seen: list[str] = []

    def looks_on(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        seen.append(statement)

    def looks_on_too(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        seen.append(statement)

    def executes(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        cursor.execute(statement, parameters)
        return True

    detach(engine)
    event.listen(engine, "do_execute", looks_on)
    attach(engine)
    event.listen(engine, "do_execute", looks_on_too)
    with ALICE, engine.begin() as connection:
        insert(connection, "1")
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        seen.clear()
        insert(connection, "2")
        assert [statement.split()[0] for statement in seen] == ["INSERT"] * 2
        event.listen(engine, "do_execute", executes)
        insert(connection, "3")
    other = create_engine(engine.url, future=True)
    event.listen(other, "do_execute", executes)
    attach(other)
    with ALICE, other.begin() as connection:
        insert(connection, "4")
    other.dispose()
    assert database.users() == ["alice"] * 4
