"""Tracks the state of one connection: the context that is set in its current transaction.

The settings of the context are local to the transaction (see set_config.py). The client tracks the
context, so that it does not send the same context twice. The tracked state also shows which context
a rollback to a savepoint restores.
"""

from __future__ import annotations

from typing import Any, Optional

from .context import EMPTY, AuditContext
from .drivers import Driver
from .statements import Kind, Statement


class TrackedContext:
    """The state of one connection. If `context` is None, the client must set the context again."""

    __slots__ = ("driver", "context", "activity", "_savepoints")

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.context: Optional[AuditContext] = EMPTY
        self.activity: Any = driver.activity()
        """The value of `Driver.activity()` when the context was last known."""
        self._savepoints: list[tuple[Optional[str], Optional[AuditContext]]] = []

    def transaction_over(self) -> None:
        """Records that no transaction is open, so no context is set."""
        self.context = EMPTY
        if self._savepoints:
            self._savepoints.clear()

    def unknown(self) -> None:
        """Records that the context is unknown, because an unseen statement can have changed it."""
        self.context = None
        if self._savepoints:
            self._savepoints.clear()

    def follow(self, statement: Statement) -> None:
        """Records a statement that makes or ends a savepoint or a transaction.

        The statement must be the only statement in its query string.
        """
        kind, savepoint = statement.kind, statement.savepoint
        if kind is Kind.SAVEPOINT:
            self._savepoints.append((savepoint, self.context))
        elif kind is Kind.ROLLBACK_TO:
            found = self._cut_off(savepoint)
            if found is None:
                self.unknown()  # the client has not seen the SAVEPOINT command
            else:
                self._savepoints.append(found)
                self.context = found[1]
        elif kind is Kind.RELEASE:
            if self._cut_off(savepoint) is None:
                self._savepoints.clear()
        elif kind is Kind.ENDS:
            self.transaction_over()

    def _cut_off(
        self, savepoint: Optional[str]
    ) -> Optional[tuple[Optional[str], Optional[AuditContext]]]:
        """Removes the newest savepoint with this name and all later savepoints.

        Returns the first of the removed savepoints, or None if no savepoint has the name.
        """
        if savepoint is None:
            return None
        for i in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[i][0] == savepoint:
                found = self._savepoints[i]
                del self._savepoints[i:]
                return found
        return None
