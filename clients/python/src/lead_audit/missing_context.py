"""Reports or refuses statements that write and whose context is missing or has no user.

The client reports each place in the code once. The place is the innermost line of the application's
code.
"""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import Any, Final, Iterator, Literal, Optional, get_args

from .context import AuditContext

logger = logging.getLogger("lead_audit")

_LIBRARIES: Final = frozenset(
    """
    lead_audit sqlalchemy django asgiref psycopg psycopg2 asyncpg greenlet asyncio contextlib
    threading concurrent alembic
    """.split()
)
_MOST_PLACES: Final = 10_000
_LONGEST_STATEMENT: Final = 2_000

OnMissing = Literal["warn", "raise", "ignore"]


class MissingContext(Exception):
    """Raised if a statement has no user and `on_missing` is "raise".

    The statement is not executed.
    """

    def __init__(self, message: str, statement: str) -> None:
        super().__init__(f"{message}: {statement}")
        self.statement = statement


class Reporter:
    """Reports or refuses statements without a user, for one engine or for all of Django."""

    def __init__(self, on_missing: OnMissing) -> None:
        if on_missing not in get_args(OnMissing):
            raise ValueError(f"on_missing is 'warn', 'raise' or 'ignore', not {on_missing!r}")
        self.ignores = on_missing == "ignore"
        self._raises = on_missing == "raise"
        self._reported: set[tuple[str, str, int]] = set()

    def missing(self, context: AuditContext, statement: str) -> None:
        """Reports or refuses one statement that can write and whose context has no user."""
        if self.ignores:
            return
        lacks = "a user" if context else "an audit context"
        message = f"a statement that can write is run without {lacks}"
        if self._raises:
            raise MissingContext(message, statement)
        self.report(message, statement)

    def report(self, message: str, statement: str) -> None:
        """Logs a message about a statement, but only once for each place in the code."""
        file, line = place()
        key = (message, file, line)
        if key in self._reported:
            return
        if len(self._reported) >= _MOST_PLACES:
            self._reported.clear()
        self._reported.add(key)
        logger.warning(
            "lead_audit: %s, at %s:%d: %s", message, file, line, statement[:_LONGEST_STATEMENT]
        )


def place() -> tuple[str, int]:
    """Returns file and line of the innermost code that does not belong to a database library."""
    for frame in _frames():
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _LIBRARIES:
            return frame.f_code.co_filename, frame.f_lineno
    return "?", 0


def _frames() -> Iterator[FrameType]:
    """Yields frames from the innermost outwards, including the frames of the greenlet's parents."""
    greenlet: Any = sys.modules.get("greenlet")
    current: Any = greenlet.getcurrent() if greenlet is not None else None
    frame: Optional[FrameType] = sys._getframe(1)
    while True:
        while frame is not None:
            yield frame
            frame = frame.f_back
        current = getattr(current, "parent", None)
        if current is None:
            return
        frame = current.gr_frame
