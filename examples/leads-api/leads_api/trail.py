"""Reads the audit trail with the role `leads_auditor`.

The application's role `leads_app` has no right to read the audit trail. All facts come from the
database. This module only arranges the facts for display."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from lead_audit.entry import Change, Entry, Fault
from lead_audit.trail import check_async, select_history, select_log, verify_async
from leads_api.errors import NoSuchEntry, NotSealed
from leads_api.models import Lead

PAGE_SIZE = 50
# The columns that the timeline shows, in this order. All other columns are internal to the
# application.
COLUMNS = (
    "company_name",
    "contact_name",
    "email",
    "domain",
    "source",
    "enrichment_status",
    "enrichment_error",
    "is_manual",
    "is_deleted",
)


@dataclass(frozen=True)
class Undone:
    """A rolled-back transaction and the number of its writes."""

    operation: str
    rows: int


@dataclass(frozen=True)
class Event:
    """An entry of the audit trail, arranged for display.

    The application sets user_id, user_ip, user_agent and request_id. The database itself records
    db_session_user and the fields below db_session_user."""

    id: int
    occurred_at: datetime
    lead_id: str | None
    kind: str
    operation: str
    outcome: str
    changes: Sequence[Change]
    undone: Sequence[Undone]
    user_id: str | None
    user_ip: str | None
    user_agent: str | None
    request_id: str | None
    db_session_user: str | None
    db_current_user: str | None
    client_addr: str | None
    application_name: str | None
    backend_pid: int | None
    txid: int
    error_code: str | None
    error_message: str | None
    error_detail: str | None
    statement: str | None
    checksum: str
    is_intact: bool


@dataclass(frozen=True)
class Timeline:
    events: Sequence[Event]
    older: int | None
    """The id of the oldest entry in `events`, or None if there are no older entries."""


@dataclass(frozen=True)
class Checkpoint:
    """The latest checkpoint, which covers the whole log and not only one lead.

    A checkpoint contains the number of entries and the root of the tree."""

    tree_size: int
    root: str
    sealed_at: datetime
    is_signed: bool


@dataclass(frozen=True)
class Verification:
    entries: int
    faults: Sequence[Fault]
    checkpoint: Checkpoint | None

    @property
    def is_intact(self) -> bool:
        return not self.faults


class Trail:
    def __init__(self, auditor: AsyncEngine) -> None:
        self._auditor = auditor

    async def timeline(self, lead_id: str, before: int | None = None) -> Timeline:
        """Returns the events of a lead, from the newest to the oldest."""
        history = select_history(Lead, lead_id)
        if before is not None:
            history = history.where(history.selected_columns.id < before)
        events = await self._newest(history, PAGE_SIZE + 1)
        return Timeline(
            events[:PAGE_SIZE], events[PAGE_SIZE - 1].id if len(events) > PAGE_SIZE else None
        )

    async def refused(self, limit: int) -> Sequence[Event]:
        """Returns failed attempts on any lead, from the newest to the oldest."""
        log = select_log()
        columns = log.selected_columns
        return await self._newest(
            log.where(columns.outcome != "ok", columns.table_name == Lead.__tablename__), limit
        )

    async def verification(self, lead_id: str) -> Verification:
        """Verifies every entry of a lead. Also returns the latest checkpoint of the log."""
        async with self._auditor.connect() as connection:
            checks = await check_async(connection, Lead, lead_id)
            changed = [check.id for check in checks if not check.intact]
            faults = [
                fault
                for entry_id in changed
                for fault in await verify_async(connection, entry_id, entry_id)
            ]
            checkpoint = (await connection.execute(text(_CHECKPOINT))).one_or_none()
        return Verification(len(checks), faults, _checkpoint(checkpoint) if checkpoint else None)

    async def inclusion_proof(self, lead_id: str, entry_id: int) -> str:
        """Returns the inclusion proof of an entry in C2SP's format tlog-proof.

        The proof shows someone without access to the database that the entry is in the log."""
        async with self._auditor.connect() as connection:
            history = select_history(Lead, lead_id)
            if not (
                await connection.execute(history.where(history.selected_columns.id == entry_id))
            ).first():
                raise NoSuchEntry(lead_id, entry_id)
            try:
                proof: str = await connection.scalar(
                    text("SELECT lead_audit.inclusion_proof(:id)"), {"id": entry_id}
                )
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) == "55000":
                    raise NotSealed(entry_id) from error
                raise
            return proof

    async def _newest(self, entries: Select[Any], limit: int) -> Sequence[Event]:
        entry_id = entries.selected_columns.id
        intact = func.lead_audit.verify_entry(entry_id).label("is_intact")
        newest = entries.add_columns(intact).order_by(None).order_by(entry_id.desc()).limit(limit)
        async with self._auditor.connect() as connection:
            rows = (await connection.execute(newest)).mappings()
            return [
                _event(
                    Entry(**{k: v for k, v in row.items() if k != "is_intact"}), row["is_intact"]
                )
                for row in rows
            ]


_CHECKPOINT = (
    "SELECT tree_size, root, sealed_at, note FROM lead_audit.checkpoint"
    " ORDER BY tree_size DESC LIMIT 1"
)

_OUTCOMES = {"failed": "refused", "rolled_back": "rolled_back"}
_KINDS = {
    "INSERT": "created",
    "UPDATE": "edited",
    "DELETE": "purged",
    "SNAPSHOT": "found",
    "TRUNCATE": "purged",
}


def _event(entry: Entry, is_intact: bool) -> Event:
    kind = _OUTCOMES.get(entry.outcome) or entry.soft_delete or _KINDS.get(entry.operation, "other")
    written = (entry.details or {}).get("written", ())
    worked_out: dict[str, Any] = {
        "lead_id": (entry.row_key or {}).get("id"),
        "kind": kind,
        "changes": _changes(entry),
        "undone": [
            Undone(part["operation"], part["rows"])
            for part in written
            if part["table_name"] == Lead.__tablename__
        ],
        "checksum": entry.checksum.hex(),
        "is_intact": is_intact,
    }
    same = {
        field.name: getattr(entry, field.name)
        for field in fields(Event)
        if field.name not in worked_out
    }
    return Event(**worked_out, **same)


def _changes(entry: Entry) -> Sequence[Change]:
    """For an UPDATE, returns the changed columns. For other events, returns the columns with a
    value."""
    if entry.operation == "UPDATE":
        changes = list(entry.changes)
    else:
        old, new = entry.old_values or {}, entry.new_values or {}
        changes = [Change(column, old.get(column), new.get(column)) for column in {**old, **new}]
        changes = [change for change in changes if change.old is not None or change.new is not None]
    order = {column: place for place, column in enumerate(COLUMNS)}
    return sorted(changes, key=lambda change: (order.get(change.column, len(order)), change.column))


def _checkpoint(row: Any) -> Checkpoint:
    # A note is signed if a blank line and signatures follow its text (C2SP signed-note).
    return Checkpoint(
        row.tree_size, base64.b64encode(row.root).decode(), row.sealed_at, "\n\n" in row.note
    )
