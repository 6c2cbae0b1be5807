"""Lets one statement at a time run on an async connection that several tasks share.

The client sends first the context and then the statement. The driver locks the connection for each
of the two separately. Without turns, another task could execute a statement between them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Iterator, Optional


class Turns:
    """The turns of tasks on one connection, in one event loop.

    A task that already has the turn may enter the block again.
    """

    __slots__ = ("_task", "_waiting")

    def __init__(self) -> None:
        self._task: Optional[Any] = None
        self._waiting: Deque[asyncio.Future[None]] = deque()

    @contextmanager
    def turn(self, wait: Callable[[Any], Any]) -> Iterator[None]:
        """A block that only one task at a time can enter. wait: awaits its argument from sync code.

        The call waits only if another task has the turn.
        """
        task = asyncio.current_task()
        if task is not None and task is self._task:
            yield
            return
        while self._task is not None:
            self._wait(wait)
        self._task = task if task is not None else object()
        try:
            yield
        finally:
            self._task = None
            self._wake_next()

    def _wait(self, wait: Callable[[Any], Any]) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            wait(waiter)
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif self._task is None:  # this task was given the turn, and passes it on
                self._wake_next()
            raise

    def _wake_next(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
