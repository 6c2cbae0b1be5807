"""Watches tables from SQLAlchemy: `watch()` is for tables that `metadata.create_all()` creates.

In a migration of Alembic, call `op.enable_audit()` instead of `watch()` (alembic.py).
"""

from __future__ import annotations

from typing import Any, Optional, Union

from sqlalchemy import Boolean, Text, cast, event, func, literal, null, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import FromClause
from sqlalchemy.types import UserDefinedType

from .trail import mapped_table, quoted, regclass


class _Name(UserDefinedType):  # type: ignore[type-arg] # generic only from SQLAlchemy 2 on
    """PostgreSQL's type `name`."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "name"


def enable_statement(
    schema: Optional[str],
    table: str,
    soft_delete_column: Optional[str] = None,
    baseline: bool = False,
) -> Any:
    """Returns a Select that starts watching a table."""
    column = (
        null() if soft_delete_column is None else cast(literal(soft_delete_column, Text()), Text())
    )
    enable = func.lead_audit.enable(
        regclass(quoted(schema, table)),
        cast(column, _Name()),
        cast(literal(baseline, Boolean()), Boolean()),
    )
    return select(enable)


def disable_statement(schema: Optional[str], table: str) -> Any:
    """Returns a Select that stops watching a table."""
    return select(func.lead_audit.disable(regclass(quoted(schema, table))))


def watch(table: Union[FromClause, type], *, soft_delete_column: Optional[str] = None) -> None:
    """Starts watching a table whenever its metadata creates the table.

    table: a mapped class or a Table. soft_delete_column: the default is is_deleted, if the table
    has a boolean column with the name is_deleted.

    The role that creates the table needs EXECUTE on lead_audit.enable(). If the table already
    exists, or if the database is not PostgreSQL, the function has no effect.
    """
    found = mapped_table(table)

    def created(target: Any, connection: Connection, **_: Any) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(enable_statement(found.schema, found.name, soft_delete_column))

    event.listen(found, "after_create", created)
