"""The database hook: sets the context before the first statement of a transaction, and before a later one if it has changed.

Django runs in autocommit unless told otherwise. There each statement that can write gets a transaction of its own, for the reasons
in lead_audit/sqlalchemy.py: BEGIN, set_config, the statement, COMMIT. `transaction.atomic()` and ATOMIC_REQUESTS need only
one set_config for each transaction.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Final

from lead_audit.applied import AppliedContext, ascii_only, set_config
from lead_audit.context import AuditContext
from lead_audit.statements import may_commit, wants_context

logger = logging.getLogger("lead_audit")

_SET_CONFIG: Final = set_config(("%s", "%s", "%s", "%s"))
_IDLE: Final = 0  # of libpq's transaction status, as psycopg and psycopg2 have it
_IN_ERROR: Final = 3


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
        status = raw.info.transaction_status
        if status == _IDLE:
            self._state.transaction_over()
        statement = sql if isinstance(sql, str) else sql.as_string(raw)
        wanted = self._state.missing(statement)
        if wanted is None or status == _IN_ERROR:
            return execute(sql, params, many, context)
        if not raw.autocommit or status != _IDLE:
            with connection.wrap_database_errors:
                self._send(raw, wanted)
            return execute(sql, params, many, context)
        if not wants_context(statement):
            if may_commit(statement):
                logger.warning("lead_audit: in autocommit this has no audit context, since it may commit by itself: %.100s", statement)
            return execute(sql, params, many, context)
        return self._execute_in_own_transaction(connection, raw, wanted, lambda: execute(sql, params, many, context))

    def _execute_in_own_transaction(self, connection: Any, raw: Any, wanted: AuditContext, execute: Callable[[], Any]) -> Any:
        with connection.wrap_database_errors:
            _run(raw, "BEGIN")
        try:
            with connection.wrap_database_errors:
                self._send(raw, wanted)
            result = execute()
        except BaseException:
            self._state.transaction_over()
            try:
                _run(raw, "ROLLBACK")
            except Exception:  # the connection is lost; the error that said so first is the one to tell
                logger.debug("lead_audit: ROLLBACK failed", exc_info=True)
            raise
        self._state.transaction_over()
        with connection.wrap_database_errors:
            _run(raw, "COMMIT")
        return result

    def _send(self, raw: Any, wanted: AuditContext) -> None:
        self._state.context = None  # not known, should this fail
        try:
            _run(raw, _SET_CONFIG, wanted.settings())
        except UnicodeEncodeError:
            _run(raw, _SET_CONFIG, ascii_only(wanted.settings()))
        self._state.context = wanted


def _run(raw: Any, statement: str, *parameters: Any) -> None:
    with raw.cursor() as cursor:
        cursor.execute(statement, *parameters)
