"""What of the context is set on one database connection: the bookkeeping between the application and its transactions.

The settings are transaction-local (`set_config(…, true)`), so a connection has nothing on it once its transaction is over,
whoever gets it next: the server sees to that. What is left to know is what was set in the present transaction, so that nothing is
sent twice, and what is current again after a rollback to a savepoint.
"""

from __future__ import annotations

from typing import Optional

from .context import EMPTY, AuditContext
from .statements import Kind, Statement

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


class ConnectionState:
    """The state of one connection. `None` in place of a context: not known, set it again."""

    __slots__ = ("context", "activity", "_savepoints")

    def __init__(self) -> None:
        self.context: Optional[AuditContext] = EMPTY
        self.activity: Optional[int] = None
        """How much the driver had done when the context was last known, where it counts (see `dbapi.activity`)."""
        self._savepoints: list[tuple[Optional[str], Optional[AuditContext]]] = []

    def transaction_over(self) -> None:
        """The transaction ended, or there is none: its settings are gone."""
        self.context = EMPTY
        if self._savepoints:
            self._savepoints.clear()

    def unknown(self) -> None:
        """Something was done in the transaction that was not seen, and may have rolled back a part of it."""
        self.context = None
        self._savepoints.clear()

    def follow(self, statement: Statement) -> None:
        """Notes a statement that is run alone, if it makes or ends savepoints or transactions."""
        kind, savepoint = statement.kind, statement.savepoint
        if kind is Kind.SAVEPOINT:
            self._savepoints.append((savepoint, self.context))
        elif kind is Kind.ROLLBACK_TO:
            found = self._cut_off(savepoint)
            if found is None:
                self.unknown()  # a savepoint that was made elsewhere
            else:
                self._savepoints.append(found)
                self.context = found[1]
        elif kind is Kind.RELEASE:
            if self._cut_off(savepoint) is None:
                self._savepoints.clear()
        elif kind is Kind.ENDS:
            self.transaction_over()

    def _cut_off(self, savepoint: Optional[str]) -> Optional[tuple[Optional[str], Optional[AuditContext]]]:
        """Forgets the newest savepoint of that name and all that came after it."""
        if savepoint is None:
            return None
        for i in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[i][0] == savepoint:
                found = self._savepoints[i]
                del self._savepoints[i:]
                return found
        return None
