"""Tests of AUTOCOMMIT: the client sends the context with each statement that writes."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any, Iterator

import pytest
from sqlalchemy import create_engine, exc, select, text
from sqlalchemy import insert as insert_into
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from lead_audit import audit_context
from lead_audit.sqlalchemy import apply_context, attach

from .cluster import Database, StatementLog
from .drivers import ASYNC, SYNC
from .leads import Lead
from .test_sqlalchemy import ALICE, BOB, INSERT, engine, insert  # noqa: F401


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:  # noqa: F811
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as made:
        yield made


def test_autocommit(engine: Engine, database: Database) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    with auto.connect() as connection:
        with ALICE:
            insert(connection, "1")
            assert connection.execute(
                text("UPDATE leads SET source = 'web' RETURNING id")
            ).all() == [("1",)]
        with BOB:
            insert(connection, "2")
            connection.execute(text("VACUUM leads"))  # VACUUM fails in a transaction
        insert(connection, "3")
        assert connection.execute(
            text("SELECT current_setting('lead_audit.user_id', true)")
        ).scalar() in (None, "")
    assert database.users() == ["alice", "alice", "bob", None]


def test_each_statement_that_can_write_has_its_context_with_it(
    engine: Engine, database: Database, statement_log: StatementLog
) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    begin, commit, rollback = (
        ([], [], [])
        if engine.dialect.driver == "psycopg2"
        else (["BEGIN"], ["COMMIT"], ["ROLLBACK"])
    )
    with auto.connect() as connection, ALICE:
        connection.execute(text("SELECT 1"))  # the dialect executes its own queries first
        before = len(statement_log.statements())
        assert connection.execute(select(Lead.id).where(Lead.email.in_(["a"]))).all() == []
        connection.execute(text("SELECT count(*), max(lower(id)) FROM leads"))
        insert(connection, "1")
        connection.execute(
            text(
                "CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS"
                " 'UPDATE leads SET source = $$x$$'"
            )
        )
        connection.execute(text("SELECT touch()"))
        with pytest.raises(exc.IntegrityError):
            insert(connection, "1")
        connection.execution_options(lead_audit=False).execute(text("DELETE FROM leads"))
        assert statement_log.statements()[before:] == (
            ["SELECT", "SELECT"]
            + [*begin, "set_config", "INSERT", *commit]
            + ["CREATE"]
            + [*begin, "set_config", "SELECT", *commit]
            + [*begin, "set_config", "INSERT", *rollback]
            + ["DELETE"]
        )
    assert database.users() == ["alice", "alice", None]


def test_what_may_commit_by_itself(
    engine: Engine, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """In a transaction, CALL and DO have the context. In AUTOCOMMIT, the client logs them.

    In AUTOCOMMIT, CALL and DO have no context, because they can commit. But a procedure can set the
    context itself.
    """
    database.query(
        """CREATE PROCEDURE plain(id text) LANGUAGE sql AS 'INSERT INTO leads (id) VALUES (id)';
           CREATE PROCEDURE commits(who text) LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 1..2 LOOP
               PERFORM set_config('lead_audit.user_id', who, true);
               INSERT INTO leads (id) VALUES ('loop ' || i);
               COMMIT;
             END LOOP;
             INSERT INTO leads (id) VALUES ('end');
           END $$"""
    )
    do = text("DO $$ BEGIN INSERT INTO leads (id) VALUES ('do'); COMMIT; END $$")
    with ALICE, engine.begin() as connection:
        connection.execute(text("CALL plain('1')"))
    assert "lead_audit" not in caplog.text
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CALL commits('alice')"))
        connection.execute(do)
        insert(connection, "2")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2 and "CALL commits" in warnings[0] and "DO $$" in warnings[1]
    assert database.users() == ["alice", "alice", "alice", None, None, "alice"]
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("CALL plain('3')"))
    assert len(caplog.records) == 3 and "without an audit context" in caplog.records[2].getMessage()


def test_bulk(engine: Engine, database: Database) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    with auto.connect() as connection, ALICE:
        connection.execute(INSERT, [{"id": str(i)} for i in range(3)])
        returned = connection.execute(insert_into(Lead).returning(Lead.id), {"id": "4"})
        assert returned.scalar() == "4"
    with Session(auto) as session, BOB:
        session.add_all([Lead(id=f"b{i}") for i in range(3)])
        session.commit()
    assert database.users() == ["alice"] * 4 + ["bob"] * 3


def test_there_is_nothing_to_apply_a_context_to_in_autocommit(engine: Engine) -> None:
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with pytest.raises(exc.InvalidRequestError, match="AUTOCOMMIT"):
            apply_context(connection)
        connection.execute(text("BEGIN"))
        apply_context(connection)
        assert (
            connection.execute(text("SELECT current_setting('lead_audit.user_id')")).scalar()
            == "alice"
        )
        connection.execute(text("ROLLBACK"))
    apply_context(engine.raw_connection())


def test_results_are_those_of_the_statement(connection: Connection, database: Database) -> None:
    with ALICE:
        for round in range(8):  # psycopg would prepare the statement after five executions
            connection.execute(INSERT, [{"id": f"{round}-{i}"} for i in range(3)])
        updated = connection.execute(
            text("UPDATE leads SET source = 'x' WHERE id LIKE '0-%' OR id LIKE :other"),
            {"other": "1-%"},
        )
        assert updated.rowcount == 6 and not updated.returns_rows
        returning = connection.execute(
            text("DELETE FROM leads WHERE source = 'x' RETURNING id, source AS \"100 %\"")
        )
        assert list(returning.keys()) == ["id", "100 %"] and len(returning.all()) == 6
        assert (
            connection.execute(text("UPDATE leads SET email = 'nobody' WHERE false")).rowcount == 0
        )
        empty = connection.execute(
            text("UPDATE leads SET email = 'nobody' WHERE false RETURNING id, email")
        )
        assert empty.all() == []
        bare = connection.execution_options(no_parameters=True)
        raw = bare.exec_driver_sql(
            "INSERT INTO leads (id, email) VALUES ('raw', '100 %') RETURNING email"
        )
        assert raw.scalar() == "100 %"
        assert (
            connection.exec_driver_sql(
                "UPDATE leads SET email = '5 %%' WHERE id = %(id)s", {"id": "raw"}
            ).rowcount
            == 1
        )
        assert (
            connection.exec_driver_sql(
                "UPDATE leads SET source = %s WHERE email = %s AND '%%' = '%%'", ("y", "5 %")
            ).rowcount
            == 1
        )
        several = connection.execute(
            text(
                "UPDATE leads SET email = 'a;b' WHERE id = 'raw';"
                " DELETE FROM leads WHERE id = 'raw'"
            )
        )
        assert several.rowcount >= 0
    assert set(database.users()) == {"alice"} and len(database.users()) == 24 + 6 + 6 + 3 + 2


class _Defaults(dict):  # type: ignore[type-arg]
    def __missing__(self, key: str) -> str:
        return f"no {key}"


def test_parameters_are_what_the_driver_makes_of_them(
    connection: Connection, database: Database
) -> None:
    with ALICE, pytest.raises(Exception) as wrong:
        connection.exec_driver_sql(
            "UPDATE leads SET source = '1%' WHERE id = '1'"
        )  # SQLAlchemy passes an empty dict
    with pytest.raises(Exception) as as_without:
        connection.exec_driver_sql("UPDATE leads SET source = '1%' WHERE id = '1'")
    assert type(wrong.value) is type(as_without.value)
    with ALICE:
        connection.exec_driver_sql(
            "INSERT INTO leads (id, email) VALUES (%(id)s, '5 %%')", _Defaults(id="1")
        )
        if connection.dialect.driver == "psycopg2":
            connection.exec_driver_sql("UPDATE leads SET source = %(source)s", _Defaults())
            assert database.query("SELECT email, source FROM leads") == [("5 %", "no source")]
    assert set(database.users()) == {"alice"}


def test_nothing_is_run_twice_because_of_who_looks_on(database: Database) -> None:
    """A statement runs only once, even if the application's cursor raises an error after it."""
    import psycopg2.extensions

    class Printing(psycopg2.extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            super().execute(query, vars)
            if b"INSERT" in self.query:
                "\u00e9".encode("ascii")

    made = create_engine(database.url("psycopg2"), connect_args={"cursor_factory": Printing})
    attach(made)
    with made.execution_options(isolation_level="AUTOCOMMIT").connect() as connection, ALICE:
        with pytest.raises(UnicodeEncodeError):
            connection.exec_driver_sql("INSERT INTO leads (id) SELECT gen_random_uuid()")
    made.dispose()
    assert database.query("SELECT count(*) FROM leads") == [(1,)]


@pytest.mark.skipif("psycopg" not in SYNC, reason="SQLAlchemy 1.4 does not know psycopg 3")
def test_cursors_and_rows_of_the_applications(database: Database) -> None:
    import psycopg

    class Own(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None) -> Any:  # type: ignore[override]  # no more than SQLAlchemy gives it
            return super().execute(query, params)

    def rows(cursor: Any) -> Any:
        assert [column.name for column in cursor.description or ()] != ["set_config"] * 4
        return psycopg.rows.tuple_row(cursor)

    made = create_engine(
        database.url("psycopg"), connect_args={"cursor_factory": Own, "row_factory": rows}
    )
    attach(made)
    with made.execution_options(isolation_level="AUTOCOMMIT").connect() as connection, ALICE:
        assert connection.execute(
            text("INSERT INTO leads (id) VALUES ('1') RETURNING id")
        ).all() == [("1",)]
    made.dispose()
    assert database.users() == ["alice"]


def test_executemany_is_one_transaction(connection: Connection, database: Database) -> None:
    with ALICE:
        update = text("UPDATE leads SET source = :source WHERE id = :id")
        connection.execute(INSERT, [{"id": str(i)} for i in range(3)])
        connection.execute(update, [{"id": str(i), "source": "web"} for i in range(3)])
        with pytest.raises(exc.DBAPIError):
            connection.execute(
                update, [{"id": "0", "source": "lost"}, {"id": "1", "source": "x" * 101}]
            )
        connection.execute(update, [{"id": "0", "source": "kept"}])
    assert database.query("SELECT source FROM leads ORDER BY id") == [("kept",), ("web",), ("web",)]
    assert database.users() == ["alice"] * 7


def test_errors(
    connection: Connection, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.query(
        "ALTER TABLE leads ADD CONSTRAINT one_email UNIQUE (email) DEFERRABLE INITIALLY DEFERRED"
    )
    for round in range(8):
        with ALICE:
            insert(connection, f"{round}")
            with pytest.raises(exc.IntegrityError, match="duplicate key") as duplicate:
                insert(connection, f"{round}")
            assert duplicate.value.statement is not None and duplicate.value.statement.startswith(
                "INSERT"
            )
            assert duplicate.value.params == {"id": f"{round}"}
            connection.execute(text("UPDATE leads SET email = 'x' WHERE id = '0'"))
            with pytest.raises(
                exc.IntegrityError, match="one_email"
            ):  # the error of the deferred constraint occurs at the end of the transaction
                connection.execute(
                    text("INSERT INTO leads (id, email) VALUES ('late', 'x') RETURNING id")
                )
            with pytest.raises(exc.ProgrammingError, match='column "nosuch" of relation'):
                connection.execute(text("INSERT INTO leads (nosuch) VALUES (1)"))
            with pytest.raises(exc.ProgrammingError, match="syntax error"):
                connection.execute(text("INSERT IN leads"))
            with pytest.raises(exc.DBAPIError, match="value too long"):
                connection.execute(text("UPDATE leads SET source = :long"), {"long": "x" * 101})
            assert not connection.invalidated
    assert caplog.records == []
    assert database.query("SELECT count(*) FROM leads") == [(8,)]
    assert set(database.users()) == {"alice"}


def test_a_statement_that_could_not_be_prepared_can_be_later(
    connection: Connection, database: Database
) -> None:
    """psycopg believes that a statement in a pipeline is prepared, even if the statement failed."""
    database.query("CREATE TABLE others (a integer); ALTER TABLE others OWNER TO app")
    with ALICE:
        for _ in range(5):
            connection.execute(text("INSERT INTO others VALUES (1)"))
        database.query("ALTER TABLE others RENAME TO away")
        for _ in range(3):
            with pytest.raises(exc.ProgrammingError, match='relation "others" does not exist'):
                connection.execute(text("INSERT INTO others VALUES (1)"))
        database.query("ALTER TABLE away RENAME TO others")
        connection.execute(text("INSERT INTO others VALUES (1)"))
    assert database.query("SELECT count(*) FROM others") == [(6,)]


def test_a_connection_that_is_lost(engine: Engine, database: Database) -> None:  # noqa: F811
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    with ALICE:
        with auto.connect() as connection:
            insert(connection, "1")
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            database.query("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(exc.DBAPIError) as lost:
                insert(connection, "lost")
            assert lost.value.connection_invalidated and "INSERT" in str(lost.value.statement)
        with auto.connect() as connection:
            insert(connection, "2")
            with pytest.raises(exc.DBAPIError) as lost:
                connection.execute(
                    text(
                        "INSERT INTO leads (id) SELECT 'x'"
                        " FROM pg_terminate_backend(pg_backend_pid())"
                    )
                )
            assert lost.value.connection_invalidated
        with auto.connect() as connection:
            insert(connection, "3")
    assert database.users() == ["alice"] * 3


def test_nothing_is_sent_for_nobody(
    connection: Connection, database: Database, statement_log: StatementLog
) -> None:
    insert(connection, "1")
    assert "set_config" not in statement_log.statements() and database.users() == [None]


@pytest.mark.parametrize("driver", SYNC)
def test_interrupted(driver: str, database: Database) -> None:
    """Ctrl-C during a statement raises KeyboardInterrupt, and the pool can still be used."""
    engine = create_engine(database.url(driver), pool_size=1, max_overflow=0, future=True)
    attach(engine)
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    main = threading.main_thread().ident
    assert main is not None
    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with (
            ALICE,
            pytest.raises((KeyboardInterrupt, exc.OperationalError)),
            auto.connect() as connection,
        ):
            insert(connection, "1")
            timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGUSR1))
            timer.start()
            connection.execute(text("INSERT INTO leads (id) SELECT 'lost' FROM pg_sleep(3)"))
    finally:
        signal.signal(signal.SIGUSR1, previous)
    with BOB, auto.connect() as connection:
        insert(connection, "2")
    engine.dispose()
    assert database.users()[0] == "alice" and database.users()[-1] == "bob"


@pytest.mark.parametrize("driver", ASYNC)
async def test_cancelled(driver: str, database: Database) -> None:
    engine = create_async_engine(database.url(driver), pool_size=1, max_overflow=0)
    attach(engine)
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def work() -> None:
        with ALICE:
            async with auto.connect() as connection:
                await connection.execute(
                    text("INSERT INTO leads (id) SELECT 'lost' FROM pg_sleep(60)")
                )

    for _ in range(3):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        async with auto.connect() as connection:
            assert (
                await connection.execute(text("UPDATE leads SET source = 'x' RETURNING id"))
            ).all() == []
    with BOB:
        async with auto.connect() as connection:
            await connection.execute(INSERT, {"id": "1"})
    await engine.dispose()
    assert database.users() == ["bob"]


@pytest.mark.parametrize("driver", ASYNC)
async def test_async_results_and_errors(driver: str, database: Database) -> None:
    engine = create_async_engine(database.url(driver), pool_size=1, max_overflow=0)
    attach(engine)
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    database.query(
        "ALTER TABLE leads ADD CONSTRAINT one_email UNIQUE (email) DEFERRABLE INITIALLY DEFERRED"
    )
    with ALICE:
        async with auto.connect() as connection:
            for round in range(8):
                result = await connection.execute(
                    text("INSERT INTO leads (id) VALUES (:id) RETURNING id, 5"), {"id": f"{round}"}
                )
                assert result.all() == [(f"{round}", 5)]
                with pytest.raises(exc.IntegrityError, match="duplicate key"):
                    await connection.execute(INSERT, {"id": f"{round}"})
                with pytest.raises(exc.DBAPIError, match="one_email"):  # the COMMIT fails
                    await connection.execute(
                        text(
                            "INSERT INTO leads (id, email) VALUES ('a', 'x'), ('b', 'x')"
                            " RETURNING id"
                        )
                    )
            assert (await connection.execute(text("UPDATE leads SET source = 'x'"))).rowcount == 8
            await connection.execute(INSERT, [{"id": f"many {i}"} for i in range(3)])
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
            database.query("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(exc.DBAPIError) as lost:
                for _ in range(100):
                    await connection.execute(INSERT, {"id": "lost"})
            assert lost.value.connection_invalidated
        async with auto.connect() as connection:
            await connection.execute(INSERT, {"id": "again"})
    await engine.dispose()
    assert database.users() == ["alice"] * (8 + 8 + 3 + 1)


@pytest.mark.skipif("psycopg" not in SYNC, reason="SQLAlchemy 1.4 has no psycopg")
def test_without_pipelines(
    database: Database, statement_log: StatementLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates psycopg with a libpq before version 14, which has no pipelines."""
    import psycopg

    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    engine = create_engine(database.url("psycopg"), future=True)
    attach(engine)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection, ALICE:
        connection.execute(text("SELECT 1"))
        before = len(statement_log.statements())
        insert(connection, "1")
        with pytest.raises(exc.IntegrityError):
            insert(connection, "1")
        assert statement_log.statements()[before:] == [
            "BEGIN",
            "set_config",
            "INSERT",
            "COMMIT",
            "BEGIN",
            "set_config",
            "INSERT",
            "ROLLBACK",
        ]
    engine.dispose()
    assert database.users() == ["alice"]


@pytest.mark.skipif("psycopg" not in SYNC, reason="SQLAlchemy 1.4 has no psycopg")
def test_in_a_pipeline_of_the_application(database: Database) -> None:
    """In a pipeline of the application, each statement has the context of its execution."""
    engine = create_engine(database.url("psycopg"), pool_size=1, max_overflow=0, future=True)
    attach(engine)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        with driver.pipeline() as pipeline:
            with ALICE:
                insert(connection, "1")
                insert(connection, "2")
            insert(connection, "3")
            with BOB:
                insert(connection, "4")
            pipeline.sync()
            insert(connection, "5")
            with BOB:
                insert(connection, "6")
                driver.execute("SELECT 1").fetchall()
                insert(connection, "7")
        with pytest.raises(Exception, match="duplicate key"), driver.pipeline(), ALICE:
            insert(connection, "8")
            insert(connection, "8")
        with ALICE:
            insert(connection, "9")
    engine.dispose()
    assert database.users() == ["alice", "alice", None, "bob", None, "bob", "bob", "alice"]


@pytest.mark.parametrize("driver", SYNC)
def test_values_that_the_client_encoding_does_not_have(driver: str, database: Database) -> None:
    engine = create_engine(database.url(driver) + "&client_encoding=latin1", future=True)
    attach(engine)
    with (
        audit_context(user_id="żółw %s %(id)s $1 \\'"),
        engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection,
    ):
        connection.execute(text("INSERT INTO leads (id, email) VALUES (:id, 'é')"), {"id": "1"})
        with pytest.raises(UnicodeEncodeError):
            insert(connection, "ż")
    engine.dispose()
    assert database.users() == ["???w %s %(id)s $1 \\'"]
    assert database.query("SELECT email FROM leads") == [("é",)]


TOUCH = (
    "CREATE FUNCTION {}({}) RETURNS bigint LANGUAGE sql AS"
    " $$ INSERT INTO leads (id) SELECT gen_random_uuid() RETURNING 1::bigint $$"
)
WRITERS = [
    "CREATE TABLE copied AS SELECT touch()",
    "CREATE MATERIALIZED VIEW copied AS SELECT touch()",
    "SELECT touch() INTO copied",
    "SELECT * FROM touching",
    "SELECT count(*) FROM leads l, public.touching_too AS t",
    "TABLE touching",
    "(TABLE touching)",
    "SELECT * FROM guarded",
    "DECLARE held CURSOR WITH HOLD FOR SELECT touch()",
    "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM touching",
    "SELECT touch /*c*/ ()",
    "SELECT touch -- it\n ()",
    "SELECT public.count('x'::text)",
    "SELECT count('x'::text, 1)",
    'SELECT "public" . "count" (\'x\'::text)',
    'SELECT "touch"()',
    "EXPLAIN ANALYZE SELECT * FROM touching",
    "WITH x AS (SELECT touch()) SELECT * FROM x",
    "PREPARE p AS SELECT touch(); EXECUTE p",
    "REFRESH MATERIALIZED VIEW touched",
]


@pytest.mark.parametrize("statement", WRITERS)
def test_what_writes_by_what_it_calls_and_reads(
    statement: str, engine: Engine, database: Database
) -> None:  # noqa: F811
    database.query(
        ";".join(
            [
                TOUCH.format("touch", ""),
                TOUCH.format("public.count", "text"),
                TOUCH.format("public.count", "text, int"),
                "CREATE VIEW touching AS SELECT touch()",
                "CREATE VIEW touching_too AS SELECT * FROM touching",
                "CREATE MATERIALIZED VIEW touched AS SELECT touch() WITH NO DATA",
                "CREATE TABLE guarded AS SELECT 1 AS a",
                "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY p ON guarded USING (touch() > 0)",
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO app",
                "GRANT CREATE ON SCHEMA public TO app",
                "ALTER MATERIALIZED VIEW touched OWNER TO app",
            ]
        )
    )
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(statement.replace("::", "\\:\\:")))
    assert set(database.users()) == {"alice"}


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_view_that_is_made_later(where: str, connection: Connection, database: Database) -> None:
    with ALICE:
        connection.execute(text("SELECT count(*) FROM leads"))
        database.query(TOUCH.format("touch", ""))
        database.query("GRANT CREATE ON SCHEMA public TO app")
        view = "CREATE VIEW touching AS SELECT touch()"
        if where == "here":
            connection.execute(text(view))
        else:
            database.query(view)
            database.query("GRANT SELECT ON touching TO app")
        connection.execute(text("SELECT * FROM touching"))
    assert database.users() == ["alice"]


def test_what_only_reads_is_sent_as_it_is(
    engine: Engine, database: Database, statement_log: StatementLog
) -> None:  # noqa: F811
    database.query("CREATE FUNCTION other() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("SELECT 1"))
        before = len(statement_log.statements())
        for statement in (
            (
                "SELECT l.id, coalesce(left(max(l.source), 3), 'x'), CAST(1 AS numeric(10, 2))"
                " FROM leads l LEFT JOIN LATERAL (SELECT 1) t ON true GROUP BY 1"
            ),
            (
                "SELECT now(), random(), pg_catalog.count(*) OVER (PARTITION BY id)"
                " FROM public.leads WHERE id IN ('1')"
            ),
            "TABLE leads",
            "VALUES (lower('X'))",
            "EXPLAIN SELECT other()",
        ):
            connection.execute(text(statement))
        assert (
            "set_config" not in statement_log.statements()[before:]
            and len(statement_log.statements()) == before + 5
        )


def test_the_catalogue_is_asked_again(database: Database) -> None:
    """The client reads the catalog for a connection opened before attach(), and after DDL."""
    engine = create_engine(database.url(SYNC[-1]), pool_size=1, max_overflow=0, future=True)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    attach(engine)
    with ALICE, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        assert isinstance(connection.connection.dbapi_connection, object)
        for _ in range(2):
            for _number in range(60):
                connection.execute(text("SELECT count(*) FROM leads"))
            connection.execute(text("CREATE TEMP TABLE IF NOT EXISTS t (a int)"))
        for _number in range(60):
            connection.execute(text("SELECT count(*) FROM leads"))
        log = StatementLog(database_log(database))
        connection.execute(text("SELECT count(*) FROM leads"))
        assert log.statements() == ["SELECT"]
    engine.dispose()


def database_log(database: Database) -> Any:
    from pathlib import Path

    return (
        Path(database.query("SELECT pg_read_file('postmaster.pid')")[0][0].split("\n")[1]).parent
        / "log"
    )


def test_the_statement_of_a_ddl_is_the_applications(
    connection: Connection, database: Database
) -> None:
    with ALICE:
        connection.execute(text("ALTER TABLE leads ADD COLUMN extra text"))
        connection.execute(text("/* so */ DROP TABLE leads"))
    entries = database.query(
        "SELECT user_id, statement FROM lead_audit.log"
        " WHERE operation NOT IN ('INSERT', 'UPDATE', 'DELETE') ORDER BY id"
    )
    assert entries and {user for user, _ in entries} == {"alice"}
    assert {statement for _, statement in entries if statement} == {
        "ALTER TABLE leads ADD COLUMN extra text",
        "/* so */ DROP TABLE leads",
    }
