"""Runs a statement with the current context: what the database hooks (sqlalchemy.py, django/connection.py) have in common.

In a transaction the context is set before the statement, if it is not set already. In autocommit a transaction-local setting would be
over before the statement: there each statement that can write shares a transaction with it. In a string of several statements it is set
where each of them that writes has it, also where the string itself ends transactions or rolls back.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Optional, TypeVar

from .connection_state import ConnectionState
from .catalog import Catalog
from .context import AuditContext, current_for_write, is_finding_user, known, outlived
from .dbapi import activity, ask, busy, commits_by_itself, driver_of, failed, follow_transactions, in_transaction, own_transaction, send
from .missing import Reporter
from .statements import Access, Analysis, analyze
from .autocommit import combining_cursor, in_pipeline, inserting_cursor

logger = logging.getLogger("lead_audit")

T = TypeVar("T")


class Execution:
    """One statement. run() runs it once.

    dbapi: the connection as the hook has it. cursor: the driver's cursor. many: it is executemany. execute: called with a stand-in for the
    driver's cursor, or None. translated: a context manager for the hook's own errors. is_server_side: it makes a cursor on the server.
    """

    __slots__ = ("state", "catalog", "reporter", "dbapi", "cursor", "text", "many", "execute", "translated", "is_server_side")

    def __init__(
        self,
        state: ConnectionState,
        catalog: Catalog,
        reporter: Reporter,
        dbapi: Any,
        cursor: Any,
        text: str,
        many: bool,
        execute: Callable[[Optional[Any]], T],
        translated: AbstractContextManager[Any] = nullcontext(),
        is_server_side: bool = False,
    ) -> None:
        self.state = state
        self.catalog = catalog
        self.reporter = reporter
        self.dbapi = dbapi
        self.cursor = cursor
        self.text = text
        self.many = many
        self.execute = execute
        self.translated = translated
        self.is_server_side = is_server_side

    def run(self) -> Any:
        """Runs it, and returns what `execute` does."""
        analysis, dbapi, state = analyze(self.text), self.dbapi, self.state
        begun = in_transaction(dbapi)
        commits = not begun and commits_by_itself(dbapi)
        if begun is False:
            state.transaction_over()
        elif busy(dbapi) and commits_by_itself(dbapi) and in_pipeline(driver_of(dbapi)):
            state.context = None  # the transaction that it was set in is over with the pipeline's next Sync, whoever sends that
        elif state.activity is not None and state.activity != activity(dbapi):
            state.unknown()
        if analysis.changes_schema:
            self.catalog.forget()
        if not analysis.several and not analysis.is_ordinary:
            state.follow(analysis.only)
            return self.execute(None)
        if not analysis.writes and is_finding_user():
            return self.execute(None)
        if commits:
            return self._run_in_autocommit(analysis)
        if failed(dbapi):
            return self.execute(None)  # which says so
        current = current_for_write()
        if current.user_id is None or outlived():
            self._report(analysis, current)
        return self._run_several_in_transaction(analysis, current) if analysis.several else self._run_in_transaction(current)

    # ---- in a transaction ----

    def _run_in_transaction(self, current: AuditContext) -> Any:
        if self.state.context != current:
            self._send(current)
        return self.execute(None)

    def _run_several_in_transaction(self, analysis: Analysis, current: AuditContext) -> Any:
        try:
            places = analysis.places(is_set=self.state.context == current, is_empty=not current)
            stand_in = None
            if places and (len(places) > 1 or places[0] != analysis.only.start):
                stand_in = None if self.many else inserting_cursor(self.cursor, current, self.state.context == current, not current)
            if places and stand_in is None:
                self._send(current)
            return self.execute(stand_in)
        finally:
            self.state.unknown()

    def _send(self, wanted: AuditContext) -> None:
        self.state.context = None  # not known, should this fail
        with self.translated:
            send(self.dbapi, wanted.settings())
        self.state.context = wanted

    # ---- in autocommit ----

    def _run_in_autocommit(self, analysis: Analysis) -> Any:
        if not known():
            self._report(analysis, known())
            return self.execute(None)
        if not self._can_write(analysis):
            return self.execute(None)
        current = current_for_write()
        if current.user_id is None or outlived():
            self._report(analysis, current)
        if not analysis.several and analysis.only.access is Access.MAY_COMMIT:
            self.reporter.report("in autocommit this has no audit context, since it may commit by itself", self.text)
            return self.execute(None)
        if self.is_server_side:
            return self.execute(None)
        if in_pipeline(driver_of(self.dbapi)):  # of the application's
            self._send(current)
            return self.execute(None)
        if not analysis.is_ordinary:
            return self._run_several_in_autocommit(analysis, current)
        stand_in = combining_cursor(self.cursor, analysis, self.many, current)
        if stand_in is not None:
            logger.debug("lead_audit: together with the statement: %s", current)
            return self.execute(stand_in)
        with own_transaction(self.dbapi, current.settings(), self.translated):
            return self.execute(None)

    def _run_several_in_autocommit(self, analysis: Analysis, current: AuditContext) -> Any:
        """A string that has transactions of its own, or what must come first in one."""
        stand_in = None if self.many else inserting_cursor(self.cursor, current, False, False)
        if stand_in is None:
            self.reporter.report("this has no audit context, since its driver does not take several statements in one string", self.text)
        try:
            return self.execute(stand_in)
        finally:
            self.state.unknown()

    def _can_write(self, analysis: Analysis) -> bool:
        if analysis.may_write:
            return True
        if analysis.several or analysis.only.access is not Access.READS:
            return False
        if in_pipeline(driver_of(self.dbapi)):
            return True
        return self.catalog.may_write(analysis.only, lambda: ask(self.dbapi))

    # ---- what is missing ----

    def _report(self, analysis: Analysis, current: AuditContext) -> None:
        if self.reporter.ignores or not (
            analysis.writes or any(self.catalog.is_known_to_write(one) for one in analysis.statements)
        ):
            return
        if current.user_id is None:
            self.reporter.missing(current, self.text)
        else:
            self.reporter.report("a task writes that has outlived its request, whose user it has: see lead_audit.detached()", self.text)


def new_state(dbapi: Any) -> ConnectionState:
    """For a connection that has none."""
    state = ConnectionState()
    follow_transactions(dbapi, state)
    return state
