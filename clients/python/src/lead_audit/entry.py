"""Plain dataclasses for entries of the audit trail, and for results of its functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Mapping, Optional


@dataclass(frozen=True)
class Change:
    """The old and the new value of a column that an UPDATE changed."""

    column: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Entry:
    """An entry of the audit trail, which is a row of the view lead_audit.log."""

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
        """Returns the diff of an UPDATE, one Change for each column.

        For other operations, returns ().
        """
        return tuple(
            Change(column, both.get("old"), both.get("new"))
            for column, both in sorted((self.diff or {}).items())
        )


@dataclass(frozen=True)
class Summary:
    """The result of lead_audit.summary(): figures about all entries of a row.

    verified: whether all entries of the row verify, or None if the row has no entries.
    """

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
    """The result of a check whether one entry was changed after it was written."""

    id: int
    intact: bool


@dataclass(frozen=True)
class Fault:
    """A fault that verify() found, for example an entry that was changed."""

    id: Optional[int]
    fault: str
    detail: Optional[str]
