"""What of the context is set on one database connection: the bookkeeping between the application and its transactions.

The settings are transaction-local (`set_config(…, true)`), so a connection has nothing on it once its transaction is over,
whoever gets it next: the server sees to that. What is left to know is what was set in the present transaction, so that nothing is
sent twice, and what is current again after a rollback to a savepoint.
"""

from __future__ import annotations

from typing import Optional

from .context import EMPTY, AuditContext
from .statements import Kind, classify

SETTINGS = ("lead_audit.user_id", "lead_audit.user_ip", "lead_audit.user_agent", "lead_audit.request_id")


def set_config(placeholders: tuple[str, str, str, str]) -> str:
    """The one statement that sets the whole context for the transaction, with these parameter placeholders."""
    calls = (f"set_config('{name}', {placeholder}, true)" for name, placeholder in zip(SETTINGS, placeholders))
    return f"SELECT {', '.join(calls)}"


def set_config_text(values: tuple[str, ...]) -> str:
    """The same with the values in it, for where a driver sends no parameters: as hexadecimal digits, so that no value is ever SQL."""
    a, b, c, d = (f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')" if value else "''" for value in values)
    return set_config((a, b, c, d))


def ascii_only(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values for a connection whose client_encoding does not have all of their characters."""
    return tuple(value.encode("ascii", "replace").decode("ascii") for value in values)


class AppliedContext:
    """The state of one connection. `None` in place of a context: not known, set it again."""

    __slots__ = ("context", "_savepoints")

    def __init__(self) -> None:
        self.context: Optional[AuditContext] = EMPTY
        self._savepoints: list[tuple[Optional[str], Optional[AuditContext]]] = []

    def transaction_over(self) -> None:
        """The transaction ended, or there is none: its settings are gone."""
        self.context = EMPTY
        self._savepoints.clear()

    def missing(self, statement: str) -> Optional[AuditContext]:
        """The context to set before this statement is run; None if there is nothing to set."""
        kind, savepoint = classify(statement)
        if kind is Kind.ORDINARY:
            current = AuditContext.current()
            return None if self.context == current else current
        if kind is Kind.SAVEPOINT:
            self._savepoints.append((savepoint, self.context))
        elif kind is Kind.ROLLBACK_TO:
            self._rolled_back_to(savepoint)
        elif kind is Kind.RELEASE:
            self._cut_off(savepoint)
        elif kind is Kind.ENDS:
            self.transaction_over()
        return None

    def _rolled_back_to(self, savepoint: Optional[str]) -> None:
        found = self._cut_off(savepoint)
        if found is None:
            self.context = None  # a savepoint that was made elsewhere
        else:
            self._savepoints.append(found)
            self.context = found[1]

    def _cut_off(self, savepoint: Optional[str]) -> Optional[tuple[Optional[str], Optional[AuditContext]]]:
        """Forgets the newest savepoint of that name and all that came after it."""
        for i in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[i][0] == savepoint:
                found = self._savepoints[i]
                del self._savepoints[i:]
                return found
        return None
