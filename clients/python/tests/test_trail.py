"""Tests of functions that read the audit trail as dataclasses and as selectables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Iterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from lead_audit import audit_context, trail
from lead_audit.entry import Change, Check, Fault
from lead_audit.sqlalchemy import attach

from .cluster import Database
from .drivers import ASYNC, SYNC
from .leads import Lead


@pytest.fixture
def edited(database: Database) -> Database:
    """Returns a database in which `alice` created lead 1, and `bob` changed and soft-deleted it.

    The role that reads the audit trail is the superuser.
    """
    engine = create_engine(database.url("psycopg2"), future=True)
    attach(engine)
    with sessionmaker(engine, future=True)() as session:
        with audit_context(user_id="alice"):
            lead = Lead(id="1", email="a@example.com", source="web")
            session.add(lead)
            session.commit()
        with audit_context(user_id="bob", user_ip="192.0.2.7"):
            lead.email = "b@example.com"
            lead.is_deleted = True
            session.commit()
    engine.dispose()
    return Database(database.socket, database.name, "postgres")


@pytest.fixture(params=SYNC)
def engine(request: Any, edited: Database) -> Iterator[Engine]:
    made = create_engine(edited.url(request.param), future=True)
    yield made
    made.dispose()


def tamper(database: Database) -> int:
    """Changes the newest entry as the superuser. Returns the id of the entry."""
    with database.connect("postgres") as connection:
        connection.execute("ALTER TABLE lead_audit.entry DISABLE TRIGGER USER")
        row = connection.execute(
            "UPDATE lead_audit.entry SET user_id = 'eve'"
            " WHERE id = (SELECT max(id) FROM lead_audit.entry) RETURNING id"
        ).fetchone()
        assert row is not None
        return int(row[0])


def test_history(engine: Engine, edited: Database) -> None:
    with engine.connect() as connection:
        made, changed = trail.history(connection, Lead, "1")
    assert (made.operation, made.user_id, made.old_values, made.changes) == (
        "INSERT",
        "alice",
        None,
        (),
    )
    assert made.new_values is not None and made.new_values["email"] == "a@example.com"
    assert (changed.user_id, changed.user_ip, changed.soft_delete) == (
        "bob",
        "192.0.2.7",
        "deleted",
    )
    assert Change("email", "a@example.com", "b@example.com") in changed.changes
    assert changed.row_key == {"id": "1"}
    assert isinstance(changed.occurred_at, datetime) and changed.occurred_at.utcoffset() is not None
    assert isinstance(changed.txid, int) and changed.txid > made.txid
    assert type(changed.checksum) is bytes and len(changed.checksum) == 32
    stored = edited.query(
        "SELECT id, txid::text, checksum FROM lead_audit.entry ORDER BY id DESC LIMIT 1"
    )[0]
    assert stored == (changed.id, str(changed.txid), changed.checksum)


def test_summary_and_verification(engine: Engine, edited: Database) -> None:
    with engine.connect() as connection:
        found = trail.summary(connection, "leads", "1")
        assert (
            found.total,
            found.created,
            found.updated,
            found.deleted,
            found.distinct_users,
            found.verified,
        ) == (2, 1, 1, 0, 2, True)
        assert trail.verify(connection) == []
        assert [check.intact for check in trail.check(connection, Lead, "1")] == [True, True]
        changed = tamper(edited)
        assert trail.summary(connection, Lead, "1").verified is False
        assert trail.check(connection, Lead, "1") == [
            Check(changed - 1, True),
            Check(changed, False),
        ]
        faults = trail.verify(connection)
        assert [(fault.id, fault.fault) for fault in faults] == [
            (changed, "checksum")
        ] and isinstance(faults[0], Fault)
        assert trail.verify(connection, to_id=changed - 1) == []
        assert trail.summary(connection, Lead, "none").verified is None


def test_selectables_combine(engine: Engine, edited: Database) -> None:
    with engine.connect() as connection:
        log = trail.select_log()
        assert (
            connection.execute(log.where(log.selected_columns.user_id == "bob"))
            .mappings()
            .one()["operation"]
            == "UPDATE"
        )
        history = trail.select_history(Lead, "1").subquery()
        from sqlalchemy import func, select

        assert connection.execute(select(func.count()).select_from(history)).scalar() == 2


def test_keys_of_several_columns_and_quoted_names(engine: Engine, edited: Database) -> None:
    edited.query(
        'CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."Two Keys" (a integer, b text, PRIMARY KEY (a, b))'
    )
    edited.query("""SELECT lead_audit.enable('"Odd"."Two Keys"')""")
    edited.query("""INSERT INTO "Odd"."Two Keys" VALUES (7, 'x"''y')""")
    table = Table("Two Keys", MetaData(), Column("a", Integer, primary_key=True), schema="Odd")
    with engine.connect() as connection:
        for relation in (table, '"Odd"."Two Keys"'):
            assert [
                entry.operation
                for entry in trail.history(connection, relation, {"a": 7, "b": "x\"'y"})
            ] == ["INSERT"]
            assert trail.summary(connection, relation, {"a": 7, "b": "x\"'y"}).created == 1


def test_what_is_no_relation(engine: Engine) -> None:
    with pytest.raises(TypeError, match="a mapped class, a Table or a name"):
        trail.select_history(int, "1")


@pytest.mark.parametrize("driver", ASYNC)
async def test_async(driver: str, edited: Database) -> None:
    engine = create_async_engine(edited.url(driver))
    async with AsyncSession(engine) as session:
        entries = await trail.history_async(session, Lead, "1")
        assert [entry.user_id for entry in entries] == ["alice", "bob"]
        assert entries[1].diff is not None and entries[1].diff["email"] == {
            "old": "a@example.com",
            "new": "b@example.com",
        }
        assert isinstance(entries[1].txid, int) and len(entries[1].checksum) == 32
        assert (await trail.summary_async(session, Lead, "1")).verified is True
        assert [check.intact for check in await trail.check_async(session, Lead, "1")] == [
            True,
            True,
        ]
        assert await trail.verify_async(session, entries[0].id, entries[1].id) == []
    await engine.dispose()
