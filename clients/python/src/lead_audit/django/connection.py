"""The database hook: sets the context before the first statement of a transaction, and before a later one if it has changed.

Django runs in autocommit unless told otherwise. There each statement that can write shares a transaction with the setting of its context, for the
reasons in lead_audit/sqlalchemy.py: an implicit one, sent in one go (lead_audit/together.py), or BEGIN with set_config, the statement, COMMIT.
`transaction.atomic()` and ATOMIC_REQUESTS need only one set_config for each transaction.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from lead_audit.applied import AppliedContext
from lead_audit.context import AuditContext
from lead_audit.dbapi import busy, failed, in_transaction, own_transaction, send
from lead_audit.statements import may_commit, wants_context
from lead_audit.together import in_pipeline, together

logger = logging.getLogger("lead_audit")


def attach(connection: Any) -> None:
    """Makes the statements of a Django connection carry the current context. A second call changes nothing."""
    if connection.vendor == "postgresql" and not any(isinstance(w, ContextWrapper) for w in connection.execute_wrappers):
        # Outermost of all: what other wrappers see, count or refuse stays what it was.
        connection.execute_wrappers.append(ContextWrapper())


class ContextWrapper:
    """A wrapper for Django's `execute_wrappers`, with the state of the connection it is on."""

    def __init__(self) -> None:
        self._raw: Any = None
        self._state = AppliedContext()

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        connection = context["connection"]
        raw = connection.connection
        if raw is not self._raw:
            self._raw, self._state = raw, AppliedContext()
        if not in_transaction(raw):
            self._state.transaction_over()
        elif busy(raw) and raw.autocommit and in_pipeline(raw):
            self._state.context = None  # as in lead_audit/sqlalchemy.py
        statement = _text(sql, raw)
        wanted = self._state.missing(statement)
        if wanted is None or failed(raw):
            return execute(sql, params, many, context)
        if not raw.autocommit or in_transaction(raw):
            self._send(connection, raw, wanted)
            return execute(sql, params, many, context)
        if not wants_context(statement):
            if may_commit(statement):
                logger.warning("lead_audit: in autocommit this has no audit context, since it may commit by itself: %.100s", statement)
            return execute(sql, params, many, context)
        if in_pipeline(raw):  # of the application's
            self._send(connection, raw, wanted)
            return execute(sql, params, many, context)
        # Django's wrapper around the driver's cursor: what stands in for that is seen by no other wrapper.
        cursor = context["cursor"]
        driven = cursor.cursor
        stand_in = together(driven, statement, many, wanted)
        if stand_in is None:
            with own_transaction(raw, wanted.settings(), connection.wrap_database_errors):
                return execute(sql, params, many, context)
        logger.debug("lead_audit: together with the statement: %s", wanted)
        cursor.cursor = stand_in
        try:
            return execute(sql, params, many, context)
        finally:
            cursor.cursor = driven

    def _send(self, connection: Any, raw: Any, wanted: AuditContext) -> None:
        self._state.context = None  # not known, should this fail
        with connection.wrap_database_errors:
            send(raw, wanted.settings())
        self._state.context = wanted


def _text(sql: Any, raw: Any) -> str:
    """A statement's text: Django takes the driver's SQL objects, too."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return sql if isinstance(sql, str) else str(sql.as_string(raw))
