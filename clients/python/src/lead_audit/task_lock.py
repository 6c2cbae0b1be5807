"""A lock with which tasks that share an async connection run one statement at a time.

The client sends first the context and then the statement. The driver locks the connection
separately for the context and for the statement. Without the lock of this module, a second task
could execute a statement in between, with the context of the first task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Iterator, Optional


class TaskLock:
    """The lock of one connection, for the tasks of one event loop.

    The task that holds the lock can take the lock again.
    """

    __slots__ = ("_task", "_waiting")

    def __init__(self) -> None:
        self._task: Optional[Any] = None
        self._waiting: Deque[asyncio.Future[None]] = deque()

    @contextmanager
    def hold(self, wait: Callable[[Any], Any]) -> Iterator[None]:
        """A block that holds the lock.

        If another task holds the lock, the block waits at its start.

        wait: a function that awaits its argument from sync code.
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
            elif self._task is None:  # the lock is free, so the next task is woken
                self._wake_next()
            raise

    def _wake_next(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
