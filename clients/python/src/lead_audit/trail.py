"""Reads the audit trail through SQLAlchemy: the history of a row, and faults of verification.

The `select_…()` functions return a Select, which can be a part of another query. `history(session,
Lead, lead_id)` returns dataclasses. For an AsyncSession or AsyncConnection, `await
history_async(session, Lead, lead_id)` returns the same dataclasses.

    relation   a mapped class, a Table, or a name in PostgreSQL's syntax ("crm.accounts")
    key        the value of the primary key, or a mapping of column names to values

The database role needs EXECUTE on the functions of lead_audit, as docs/privileges.md describes.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, Optional, Sequence, Union

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Integer,
    LargeBinary,
    Text,
    cast,
    column,
    func,
    literal,
    select,
)
from sqlalchemy import inspect as inspect_target
from sqlalchemy import table as table_clause
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB, REGCLASS
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.schema import Table
from sqlalchemy.sql.expression import FromClause

from .entry import Check, Entry, Fault, Summary

__all__ = [
    "Check",
    "Entry",
    "Fault",
    "Summary",
    "check",
    "check_async",
    "history",
    "history_async",
    "select_checks",
    "select_faults",
    "select_history",
    "select_log",
    "select_summary",
    "summary",
    "summary_async",
    "verify",
    "verify_async",
]

_DIALECT: Any = postgresql.dialect  # SQLAlchemy has no type annotations for this class

Relation = Union[str, FromClause, type]  # SQLAlchemy types Lead.__table__ as FromClause
Key = Any

_LOG_COLUMNS = (
    ("id", BigInteger()),
    ("occurred_at", DateTime(timezone=True)),
    ("txid", Text()),
    ("table_schema", Text()),
    ("table_name", Text()),
    ("operation", Text()),
    ("outcome", Text()),
    ("row_key", JSONB()),
    ("old_values", JSONB()),
    ("new_values", JSONB()),
    ("diff", JSONB()),
    ("soft_delete", Text()),
    ("user_id", Text()),
    ("user_ip", Text()),
    ("user_agent", Text()),
    ("request_id", Text()),
    ("db_session_user", Text()),
    ("db_current_user", Text()),
    ("client_addr", Text()),
    ("application_name", Text()),
    ("backend_pid", Integer()),
    ("error_code", Text()),
    ("error_message", Text()),
    ("error_detail", Text()),
    ("statement", Text()),
    ("checksum", LargeBinary()),
    ("details", JSONB()),
)
_SUMMARY_COLUMNS = (
    ("total", BigInteger()),
    ("created", BigInteger()),
    ("updated", BigInteger()),
    ("deleted", BigInteger()),
    ("failed", BigInteger()),
    ("first_event", DateTime(timezone=True)),
    ("last_event", DateTime(timezone=True)),
    ("distinct_users", BigInteger()),
    ("verified", Boolean()),
)
_FAULT_COLUMNS = (("id", BigInteger()), ("fault", Text()), ("detail", Text()))


# ---- selectables --------------------------------------------------------------------------------


def select_history(relation: Relation, key: Key) -> Any:
    """Returns a Select of a row's entries in order, with the columns of lead_audit.log."""
    return _select_log(
        _function("history", relation, key).table_valued(*_columns(_LOG_COLUMNS), name="history")
    )


def select_log() -> Any:
    """Returns a Select of the whole audit trail, in order.

    To restrict the Select, add `.where(…)` with its `selected_columns`.
    """
    return _select_log(_view("log", _LOG_COLUMNS))


def select_summary(relation: Relation, key: Key) -> Any:
    """Returns a Select whose only row has the columns of `Summary`."""
    found = _function("summary", relation, key).table_valued(
        *_columns(_SUMMARY_COLUMNS), name="summary"
    )
    return select(*found.c)


def select_checks(relation: Relation, key: Key) -> Any:
    """Returns a Select of the checks of a row's entries, with the columns of `Check`."""
    found = _function("history", relation, key).table_valued(
        *_columns(_LOG_COLUMNS), name="history"
    )
    return select(
        found.c.id, func.lead_audit.verify_entry(found.c.id, type_=Boolean()).label("intact")
    ).order_by(found.c.id)


def select_faults(
    from_id: Optional[int] = None,
    to_id: Optional[int] = None,
    from_time: Any = None,
    to_time: Any = None,
) -> Any:
    """Returns a Select of the faults that verify() finds in all entries or in a range of ids."""
    arguments = (
        cast(literal(from_id, BigInteger()), BigInteger()),
        cast(literal(to_id, BigInteger()), BigInteger()),
        cast(literal(from_time, DateTime(timezone=True)), DateTime(timezone=True)),
        cast(literal(to_time, DateTime(timezone=True)), DateTime(timezone=True)),
    )
    found = func.lead_audit.verify(*arguments).table_valued(
        *_columns(_FAULT_COLUMNS), name="verify"
    )
    return select(*found.c)


def _select_log(found: Any) -> Any:
    columns = [
        cast(cast(c, Text()), BigInteger()).label("txid") if c.name == "txid" else c
        for c in found.c  # no driver knows PostgreSQL's type xid8
    ]
    return select(*columns).select_from(found).order_by(found.c.id)


def _view(name: str, columns: Sequence[tuple[str, Any]]) -> Any:
    return table_clause(name, *_columns(columns), schema="lead_audit")


def _columns(columns: Sequence[tuple[str, Any]]) -> list[Any]:
    return [column(name, type_) for name, type_ in columns]


def _function(name: str, relation: Relation, key: Key) -> Any:
    function = getattr(func.lead_audit, name)
    return function(regclass(relation), _key(key))


def regclass(relation: Relation) -> Any:
    """Returns the relation as a parameter of the type regclass."""
    return cast(cast(literal(qualified_name(relation), Text()), Text()), REGCLASS())


def quoted(schema: Optional[str], name: str) -> str:
    """Returns the name of a table in PostgreSQL's syntax, quoted where necessary."""
    quote = _DIALECT().identifier_preparer.quote
    return f"{quote(schema)}.{quote(name)}" if schema else str(quote(name))


def qualified_name(relation: Relation) -> str:
    """Returns the name of a relation in PostgreSQL's syntax, quoted where necessary."""
    if isinstance(relation, str):
        return relation
    table = mapped_table(relation)
    return quoted(table.schema, table.name)


def mapped_table(relation: Union[FromClause, type]) -> Table:
    """Returns the Table of a mapped class, or the Table itself."""
    if isinstance(relation, Table):
        return relation
    mapper: Any = None
    try:
        mapper = inspect_target(relation)
    except NoInspectionAvailable:
        pass
    if not isinstance(mapper, Mapper) or not isinstance(mapper.local_table, Table):
        raise TypeError(f"a mapped class, a Table or a name is wanted, not {relation!r}")
    return mapper.local_table


def _key(key: Key) -> Any:
    if isinstance(key, Mapping):
        text = json.dumps(key, default=str, ensure_ascii=False)
        return cast(cast(literal(text, Text()), Text()), JSONB())
    return cast(literal(str(key), Text()), Text())


# ---- calls --------------------------------------------------------------------------------------


def history(connection: Any, relation: Relation, key: Key) -> list[Entry]:
    """Returns the entries of a row, in order. connection: a Session or a Connection."""
    return _entries(connection.execute(select_history(relation, key)))


def summary(connection: Any, relation: Relation, key: Key) -> Summary:
    """Returns the counts of a row's entries, and whether all of them verify."""
    return Summary(**connection.execute(select_summary(relation, key)).mappings().one())


def check(connection: Any, relation: Relation, key: Key) -> list[Check]:
    """Returns, for each entry of a row, whether the entry was changed after it was written."""
    return [Check(**row) for row in connection.execute(select_checks(relation, key)).mappings()]


def verify(
    connection: Any, from_id: Optional[int] = None, to_id: Optional[int] = None
) -> list[Fault]:
    """Returns the faults in the audit trail, or between two ids. Without faults, returns []."""
    return [Fault(**row) for row in connection.execute(select_faults(from_id, to_id)).mappings()]


async def history_async(connection: Any, relation: Relation, key: Key) -> list[Entry]:
    """Does the same as `history()` for an AsyncSession or AsyncConnection."""
    return _entries(await connection.execute(select_history(relation, key)))


async def summary_async(connection: Any, relation: Relation, key: Key) -> Summary:
    """Does the same as `summary()` for an AsyncSession or AsyncConnection."""
    return Summary(**(await connection.execute(select_summary(relation, key))).mappings().one())


async def check_async(connection: Any, relation: Relation, key: Key) -> list[Check]:
    """Does the same as `check()` for an AsyncSession or AsyncConnection."""
    return [
        Check(**row) for row in (await connection.execute(select_checks(relation, key))).mappings()
    ]


async def verify_async(
    connection: Any, from_id: Optional[int] = None, to_id: Optional[int] = None
) -> list[Fault]:
    """Does the same as `verify()` for an AsyncSession or AsyncConnection."""
    return [
        Fault(**row) for row in (await connection.execute(select_faults(from_id, to_id))).mappings()
    ]


def _entries(result: Any) -> list[Entry]:
    return [Entry(**{**row, "checksum": bytes(row["checksum"])}) for row in result.mappings()]
