"""The context in SQLAlchemy's transactions, with the sync drivers."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from lead_audit import AuditContext, audit_context
from lead_audit.sqlalchemy import apply_context, attach, detach

from .cluster import Database
from .drivers import SYNC
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
            insert(connection, "2")  # the rollback has taken the setting back, too
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


def test_autocommit(engine: Engine, database: Database) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    with auto.connect() as connection:
        with ALICE:
            insert(connection, "1")
            assert connection.execute(text("UPDATE leads SET source = 'web' RETURNING id")).all() == [("1",)]
        with BOB:
            insert(connection, "2")
            connection.execute(text("VACUUM leads"))  # cannot run in a transaction, and does not
        insert(connection, "3")
        assert connection.execute(text("SELECT current_setting('lead_audit.user_id', true)")).scalar() in (None, "")
    assert database.users() == ["alice", "alice", "bob", None]
