"""Runs a statement with the current context, for sqlalchemy.py and django/connection.py.

In a transaction, the client sets the context before the statement if the context is not set
already. In autocommit, a setting that is local to a transaction would end before the statement
runs. So in autocommit, the client puts the setting and a statement that can write into one
transaction. If a query string has several statements, the client sets the context within the
string. So each writing statement has the context, even if the string ends a transaction or rolls
back.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Final, Optional

from .autocommit import combining_cursor, inserting_cursor
from .context import AuditContext, current_for_write, is_finding_user, known, outlived
from .drivers import ACTIVE, FAILED, IDLE, own_transaction
from .may_write import Catalog
from .missing_context import Reporter
from .statements import Access, Analysis, analyze
from .tracked_context import TrackedContext

logger = logging.getLogger("lead_audit")

_NOT_TRANSLATED: Final[Any] = nullcontext()


class Execution:
    """One execution of a statement, which run() runs once.

    cursor: the driver's cursor. many: whether the application calls executemany. execute: a
    function that runs the statement. Its argument is a stand-in for the driver's cursor, or None.
    translated: a context manager that turns the driver's errors into errors of SQLAlchemy or
    Django. is_server_side: whether the statement makes a cursor on the server.
    """

    __slots__ = (
        "state",
        "catalog",
        "reporter",
        "cursor",
        "text",
        "many",
        "execute",
        "translated",
        "is_server_side",
    )

    def __init__(
        self,
        state: TrackedContext,
        catalog: Catalog,
        reporter: Reporter,
        cursor: Any,
        text: str,
        many: bool,
        execute: Callable[[Optional[Any]], Any],
        translated: AbstractContextManager[Any] = _NOT_TRANSLATED,
        is_server_side: bool = False,
    ) -> None:
        self.state = state
        self.catalog = catalog
        self.reporter = reporter
        self.cursor = cursor
        self.text = text
        self.many = many
        self.execute = execute
        self.translated = translated
        self.is_server_side = is_server_side

    def run(self) -> Any:
        """Runs the statement, and returns the result of `execute`."""
        state = self.state
        driver = state.driver
        status = driver.status()
        if status == IDLE:
            state.transaction_over()
        elif status == ACTIVE and driver.commits_by_itself() and driver.in_pipeline():
            state.context = (
                None  # unknown, because a Sync of the pipeline can have ended the transaction
            )
        elif state.activity != driver.activity():
            state.unknown()
        try:
            return self._run(status)
        finally:
            state.activity = driver.activity()

    def _run(self, status: Optional[int]) -> Any:
        analysis, state = analyze(self.text), self.state
        if analysis.changes_schema:
            self.catalog.forget()
        if not analysis.several and not analysis.is_ordinary:
            state.follow(analysis.only)
            return self.execute(None)
        if not analysis.writes and is_finding_user():
            return self.execute(None)
        if (
            not status and state.driver.commits_by_itself()
        ):  # outside of a transaction, or the state is unknown
            return self._run_in_autocommit(analysis)
        if status == FAILED:
            return self.execute(None)  # in a failed transaction, every statement fails
        current = current_for_write()
        if current.user_id is None or outlived():
            self._report(analysis, current)
        if analysis.several:
            return self._run_several_in_transaction(analysis, current)
        if state.context is not current and state.context != current:
            self._send(current)
        return self.execute(None)

    # ---- in a transaction ----

    def _run_several_in_transaction(self, analysis: Analysis, current: AuditContext) -> Any:
        try:
            places = analysis.places(is_set=self.state.context == current, is_empty=not current)
            stand_in = None
            if places and (len(places) > 1 or places[0] != analysis.only.start):
                stand_in = (
                    None
                    if self.many
                    else inserting_cursor(
                        self.cursor, current, self.state.context == current, not current
                    )
                )
            if places and stand_in is None:
                self._send(current)
            return self.execute(stand_in)
        finally:
            self.state.unknown()

    def _send(self, wanted: AuditContext) -> None:
        state = self.state
        state.context = None  # the context stays unknown if send() fails
        with self.translated:
            state.driver.send(wanted.settings())
        state.context = wanted

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
            self.reporter.report(
                "in autocommit this has no audit context, because it may commit by itself",
                self.text,
            )
            return self.execute(None)
        if self.is_server_side:
            return self.execute(None)
        driver = self.state.driver
        if driver.in_pipeline():  # the application has begun the pipeline
            self._send(current)
            return self.execute(None)
        if not analysis.is_ordinary:
            return self._run_several_in_autocommit(analysis, current)
        stand_in = combining_cursor(self.cursor, analysis, self.many, current)
        if stand_in is not None:
            logger.debug("lead_audit: together with the statement: %s", current)
            return self.execute(stand_in)
        with own_transaction(driver, current.settings(), self.translated):
            return self.execute(None)

    def _run_several_in_autocommit(self, analysis: Analysis, current: AuditContext) -> Any:
        """Runs a query string of several statements, or a statement that begins a transaction."""
        stand_in = None if self.many else inserting_cursor(self.cursor, current, False, False)
        if stand_in is None:
            self.reporter.report(
                "this has no audit context, because its driver takes one statement in a string",
                self.text,
            )
        try:
            return self.execute(stand_in)
        finally:
            self.state.unknown()

    def _can_write(self, analysis: Analysis) -> bool:
        if analysis.may_write:
            return True
        if analysis.several or analysis.only.access is not Access.READS:
            return False
        driver = self.state.driver
        return driver.in_pipeline() or self.catalog.may_write(analysis.only, driver.ask)

    # ---- missing users ----

    def _report(self, analysis: Analysis, current: AuditContext) -> None:
        if self.reporter.ignores or not (
            analysis.writes
            or any(self.catalog.is_known_to_write(one) for one in analysis.statements)
        ):
            return
        if current.user_id is None:
            self.reporter.missing(current, self.text)
        else:
            self.reporter.report(
                "a task writes that has outlived its request: see lead_audit.detached()",
                self.text,
            )
