"""The trail as plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Mapping, Optional


@dataclass(frozen=True)
class Change:
    """One column's old and new value in an UPDATE."""

    column: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Entry:
    """One event of a watched table: a row of the view lead_audit.log. Columns of later versions are not in it."""

    id: int
    occurred_at: datetime
    txid: int
    table_schema: Optional[str]
    table_name: Optional[str]
    operation: str
    outcome: str
    row_key: Optional[Mapping[str, Any]]
    old_values: Optional[Mapping[str, Any]]
    new_values: Optional[Mapping[str, Any]]
    diff: Optional[Mapping[str, Any]]
    soft_delete: Optional[str]
    user_id: Optional[str]
    user_ip: Optional[str]
    user_agent: Optional[str]
    request_id: Optional[str]
    db_session_user: Optional[str]
    db_current_user: Optional[str]
    client_addr: Optional[str]
    application_name: Optional[str]
    backend_pid: Optional[int]
    error_code: Optional[str]
    error_message: Optional[str]
    error_detail: Optional[str]
    statement: Optional[str]
    checksum: bytes
    details: Optional[Mapping[str, Any]]

    @property
    def changes(self) -> tuple[Change, ...]:
        """The diff of an UPDATE, by column; nothing for other operations."""
        return tuple(
            Change(column, both.get("old"), both.get("new"))
            for column, both in sorted((self.diff or {}).items())
        )


@dataclass(frozen=True)
class Summary:
    """One row's entries in numbers. verified: whether all of them are as they were written; None if there is none."""

    total: int
    created: int
    updated: int
    deleted: int
    failed: int
    first_event: Optional[datetime]
    last_event: Optional[datetime]
    distinct_users: int
    verified: Optional[bool]


@dataclass(frozen=True)
class Check:
    """Whether one entry is as it was written."""

    id: int
    intact: bool


@dataclass(frozen=True)
class Fault:
    """An entry that is not as it was written, or something else that verify() found."""

    id: Optional[int]
    fault: str
    detail: Optional[str]
