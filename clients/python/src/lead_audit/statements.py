"""What a statement means for the context that is set in its transaction: found from its text, without parsing all of it."""

from __future__ import annotations

import enum
import re
from typing import Final, Optional


class Kind(enum.Enum):
    """What a statement does with transactions."""

    ORDINARY = enum.auto()
    """It runs in one, and wants its context set before."""
    SAVEPOINT = enum.auto()
    ROLLBACK_TO = enum.auto()
    RELEASE = enum.auto()
    ENDS = enum.auto()
    """After it nothing is set: COMMIT, ROLLBACK, DISCARD ALL, …"""
    APART = enum.auto()
    """It cannot or need not have anything before it in its transaction: BEGIN, SET TRANSACTION, LOCK, …"""


_BLANK = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_NAME = r'("(?:[^"]|"")*"|[^\s;]+)'
_CONTROL: Final = re.compile(
    rf"""{_BLANK}(?:
      (?P<savepoint>SAVEPOINT\s+{_NAME})
    | (?P<rollback_to>ROLLBACK\s+(?:WORK\s+|TRANSACTION\s+)?TO\s+(?:SAVEPOINT\s+)?{_NAME})
    | (?P<release>RELEASE\s+(?:SAVEPOINT\s+)?{_NAME})
    | (?P<ends>(?:COMMIT|ROLLBACK|END|ABORT|PREPARE\s+TRANSACTION|DISCARD\s+ALL|RESET\s+ALL|RESET\s+lead_audit)\b)
    | (?P<apart>(?:BEGIN|START\s+TRANSACTION|SET|RESET|SHOW|LOCK|DISCARD|LISTEN|UNLISTEN|DEALLOCATE|CLOSE)\b)
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_KINDS: Final = {
    "savepoint": (Kind.SAVEPOINT, 2),
    "rollback_to": (Kind.ROLLBACK_TO, 4),
    "release": (Kind.RELEASE, 6),
    "ends": (Kind.ENDS, None),
    "apart": (Kind.APART, None),
}


def classify(statement: str) -> tuple[Kind, Optional[str]]:
    """What the statement does, and the savepoint it names."""
    match = _CONTROL.match(statement)
    if match is None or match.lastgroup is None:
        return Kind.ORDINARY, None
    kind, group = _KINDS[match.lastgroup]
    return kind, None if group is None else _folded(match[group])


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


_OPEN = r"(?:[\s(]|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"  # with parentheses among the blanks
_WRITES: Final = re.compile(
    rf"{_OPEN}(?:(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|WITH|EXECUTE)\b|EXPLAIN\b.*\bANALY[SZ]E\b)", re.IGNORECASE | re.DOTALL
)
_MAY_COMMIT: Final = re.compile(rf"{_BLANK}(?:CALL|DO)\b", re.IGNORECASE | re.DOTALL)
# What can change or drop a table, and may run in a transaction.
_DDL: Final = re.compile(
    rf"{_BLANK}(?:ALTER|DROP)\s+(?:TABLE|SCHEMA|TYPE|DOMAIN|OWNED|EXTENSION)\b(?!.*\bCONCURRENTLY\b)", re.IGNORECASE | re.DOTALL
)
_SELECT: Final = re.compile(rf"{_OPEN}(?:SELECT|VALUES)\b", re.IGNORECASE | re.DOTALL)
_CALLED: Final = re.compile(r"([\w$.]+)\s*\(")
# What may stand before a parenthesis in a SELECT that only reads: words of SQL, and the functions that are called most.
_READ_ONLY: Final = frozenset(
    """
    all and any array as avg between bigint bit case else bool_and bool_or by cast ceil char char_length coalesce concat count cube date_part date_trunc
    dense_rank distinct except exists extract filter first_value floor from group grouping having in intersect is json_agg
    json_build_object jsonb_agg jsonb_build_object join lateral lead lag left length like limit lower materialized max min not
    now nullif numeric decimal interval timestamp time offset on or order over over partition position rank recursive replace right rollup round row row_number select
    sets some split_part string_agg substr substring sum then to_char to_date to_timestamp trim union upper using values varchar when
    where with within
    """.split()
)


def wants_context(statement: str) -> bool:
    """Whether a statement outside of any transaction is to get one of its own, so that what it writes has its context.

    That is so for whatever can leave an entry in the audit trail and may run inside a transaction. A SELECT can, by the
    functions that it calls: only one that calls none but well-known ones is left alone.
    """
    if _SELECT.match(statement):
        if '"(' in statement.replace(" ", ""):
            return True
        return any(name.lower().rpartition(".")[2] not in _READ_ONLY for name in _CALLED.findall(statement))
    return bool(_WRITES.match(statement) or _DDL.match(statement))


def may_commit(statement: str) -> bool:
    """Whether a statement may write and end transactions by itself, so that it cannot be put into one: CALL, DO."""
    return bool(_MAY_COMMIT.match(statement))


_COPY: Final = re.compile(rf"{_BLANK}COPY\b", re.IGNORECASE)


def copies(statement: str) -> bool:
    """Whether it is a COPY: a protocol of its own, which cannot be sent together with anything."""
    return bool(_COPY.match(statement))


def may_be_several(statement: str) -> bool:
    """Whether there may be several statements in it. A semicolon in a literal counts as well."""
    return ";" in statement.rstrip("; \t\r\n")
