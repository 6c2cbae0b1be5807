"""Adapts to each driver: reads the state of a transaction, notices statements, sends the context.

`driver_for()` returns the `Driver` of a connection. drivers.py has classes for psycopg 3, psycopg2,
asyncpg and unknown drivers. `connection` is the driver's own connection. For an async connection,
`dbapi` is SQLAlchemy's wrapper around `connection`. For other connections, `dbapi` and `connection`
are the same object. execution.py decides which context is sent, and drivers.py sends this context.

`Driver.activity()` shows whether the application has executed a statement that the client has not
seen, for example with a cursor of the driver. An unseen statement can roll back to a savepoint, and
this rollback restores an earlier context.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Final, Optional, Sequence

from . import may_write
from .set_config import ascii_only, set_config, set_config_text

logger = logging.getLogger("lead_audit")

IDLE: Final = 0
"""libpq's transaction status PQTRANS_IDLE: the connection is outside of a transaction."""
ACTIVE: Final = 1
"""libpq's status PQTRANS_ACTIVE: the connection has results to read, as in a pipeline."""
IN_TRANSACTION: Final = 2
FAILED: Final = 3
"""libpq's status PQTRANS_INERROR: the transaction has failed, and only ROLLBACK works."""

_FORMAT: Final = set_config(("%s", "%s", "%s", "%s"))
_NUMBERED: Final = set_config(("$1", "$2", "$3", "$4"))


def driver_for(dbapi: Any) -> Driver:
    """Returns the driver of a connection of SQLAlchemy or Django.

    After the call, the returned driver counts the statements that the connection executes.
    """
    connection = getattr(dbapi, "driver_connection", dbapi)
    psycopg: Any = sys.modules.get("psycopg")
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):
        return _PsycopgAsync(dbapi, connection)
    if psycopg is not None and isinstance(connection, psycopg.Connection):
        return _Psycopg(dbapi, connection)
    if is_psycopg2(connection):
        return _Psycopg2(dbapi, connection)
    if hasattr(connection, "is_in_transaction"):
        # _run() needs these attributes of SQLAlchemy's wrapper. SQLAlchemy 1.4 to 2.1 have them.
        needed = ("_execute_mutex", "_transaction", "_start_transaction", "_handle_exception")
        return (_Asyncpg if all(hasattr(dbapi, name) for name in needed) else _AsyncpgUnwrapped)(
            dbapi, connection
        )
    return Driver(dbapi, connection)


def is_psycopg2(connection: Any) -> bool:
    psycopg2: Any = sys.modules.get("psycopg2")
    return psycopg2 is not None and isinstance(connection, psycopg2.extensions.connection)


def is_pipelined(connection: Any) -> bool:
    """Returns whether the connection is in a pipeline of psycopg 3, in which a Sync commits."""
    return bool(getattr(getattr(connection, "pgconn", None), "pipeline_status", 0))


class Driver:
    """A connection of an unknown driver, which does not report the state of its transactions."""

    __slots__ = ("dbapi", "connection")

    def __init__(self, dbapi: Any, connection: Any) -> None:
        self.dbapi = dbapi
        self.connection = connection

    def status(self) -> Optional[int]:
        """Returns the state of the transaction without a round trip, or None if it is unknown."""
        return None

    def commits_by_itself(self) -> bool:
        """Returns whether the driver begins no transaction, so that each statement commits itself.

        The driver begins no transaction in autocommit, and after a COMMIT that the driver did not
        see.
        """
        return bool(getattr(self.dbapi, "autocommit", False))

    def activity(self) -> Any:
        """Returns a value that changes with each executed statement.

        If the driver cannot count statements, each call returns a new value. For an unknown driver,
        the result is None.
        """
        return None

    def in_pipeline(self) -> bool:
        """Returns whether the connection is in a pipeline of psycopg 3."""
        return False

    def ask(self) -> Sequence[Sequence[str]]:
        """Returns the rows of `may_write.QUERY`, and leaves no transaction open."""
        raise NotImplementedError("a driver that is not known")

    def send(self, values: tuple[str, ...]) -> None:
        """Sets the context for the current transaction, or for a new transaction if none is open.

        The call takes one round trip. A BEGIN of the driver can take a second round trip.
        """
        # psycopg and psycopg2 accept only the placeholder %s. SQLAlchemy's wrappers state their
        # parameter style.
        numbered = (
            getattr(getattr(self.dbapi, "dbapi", None), "paramstyle", None) == "numeric_dollar"
        )
        self._execute_with(_NUMBERED if numbered else _FORMAT, values)

    def begin(self, values: tuple[str, ...]) -> None:
        """Begins a transaction with the context `values`, on a connection in autocommit."""
        self._execute("BEGIN")
        self.send(values)

    def end(self, command: str) -> None:
        """Ends the transaction of begin() with `command`, which is COMMIT or ROLLBACK."""
        self._execute(command)

    def _execute_with(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            self._execute(statement, values)
        except UnicodeEncodeError:
            self._execute(statement, ascii_only(values))

    def _execute(self, statement: str, *parameters: Any) -> None:
        logger.debug("lead_audit: %s %s", statement, parameters)
        cursor = self.dbapi.cursor()
        try:
            cursor.execute(statement, *parameters)
        finally:
            cursor.close()


@contextmanager
def own_transaction(
    driver: Driver, values: tuple[str, ...], translated: AbstractContextManager[Any] = nullcontext()
) -> Iterator[None]:
    """A block with its own transaction and the context `values`, for connections in autocommit.

    translated: a context manager around BEGIN and COMMIT. The context manager turns the driver's
    errors into errors of SQLAlchemy or Django.
    """
    try:
        with translated:
            driver.begin(values)
        yield
    except BaseException:
        try:
            driver.end("ROLLBACK")
        except Exception:  # the connection is lost, as the first error reports
            logger.debug("lead_audit: ROLLBACK failed", exc_info=True)
        raise
    with translated:
        driver.end("COMMIT")


# ---- psycopg 3 ----------------------------------------------------------------------------------


class _Psycopg(Driver):
    __slots__ = ("_pgconn", "_counter")

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._pgconn = connection.pgconn
        self._counter = _count_waits(connection)

    def status(self) -> Optional[int]:
        found: int = self._pgconn.transaction_status
        return found

    def activity(self) -> Any:
        return self._counter.count

    def in_pipeline(self) -> bool:
        return is_pipelined(self.connection)

    def ask(self) -> Sequence[Sequence[str]]:
        psycopg = sys.modules["psycopg"]
        cursor = psycopg.Cursor(self.connection, row_factory=psycopg.rows.tuple_row)
        return _ask(self.connection, cursor)

    def send(self, values: tuple[str, ...]) -> None:
        self._execute_with(_FORMAT, values)


class _PsycopgAsync(_Psycopg):
    __slots__ = ()

    def ask(self) -> Sequence[Sequence[str]]:
        psycopg: Any = sys.modules["psycopg"]

        async def ask(connection: Any) -> Any:
            async with psycopg.AsyncCursor(
                connection, row_factory=psycopg.rows.tuple_row
            ) as cursor:
                try:
                    await cursor.execute(may_write.QUERY, prepare=False)
                    return await cursor.fetchall()
                finally:
                    await connection.rollback()

        found: Sequence[Sequence[str]] = self.dbapi.run_async(ask)
        return found

    send = Driver.send  # this send() uses the parameter style of SQLAlchemy's wrapper


class _Counter:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


# psycopg waits for the server with generators. The generators with these names execute no
# statement: they fetch rows or close a cursor.
_FETCHING: Final = frozenset({"_fetch_gen", "_scroll_gen", "_close_gen", "_stream_fetchone_gen"})


def _count_waits(connection: Any) -> _Counter:
    """Counts the calls of `wait()`. Each statement of psycopg calls `wait()` at least once."""
    counter: Optional[_Counter] = getattr(connection, "_lead_audit_counter", None)
    if counter is not None:
        return counter
    counter = connection._lead_audit_counter = counted = _Counter()
    # `reference` is weak, because a connection with a strong reference to itself would not be
    # closed when nothing else uses it.
    wait, reference = type(connection).wait, weakref.ref(connection)

    def counting(generator: Any, *arguments: Any, **named: Any) -> Any:
        if getattr(generator, "__name__", "") not in _FETCHING:
            counted.count += 1
        return wait(reference(), generator, *arguments, **named)

    connection.wait = counting
    return counter


def _ask(connection: Any, cursor: Any) -> Sequence[Sequence[str]]:
    try:
        cursor.execute(may_write.QUERY)
        found: Sequence[Sequence[str]] = cursor.fetchall()
        return found
    finally:
        cursor.close()
        connection.rollback()


# ---- psycopg2 -----------------------------------------------------------------------------------

_BEGUN: Final = 2  # psycopg2.extensions.STATUS_BEGIN: psycopg2 has begun a transaction


class _Psycopg2(Driver):
    __slots__ = ("_cursors", "_info")

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._info = connection.info
        self._cursors = _count_executions(connection)

    def status(self) -> Optional[int]:
        found: int = self._info.transaction_status
        return found

    def commits_by_itself(self) -> bool:
        if self.connection.autocommit:
            return True
        return bool(self.connection.status == _BEGUN and self._info.transaction_status == IDLE)

    def activity(self) -> Any:
        cursors = self._cursors
        if cursors is None or self.connection.cursor_factory is not cursors:
            # The application has replaced the counting factory, or the connection has no counting
            # factory yet.
            self._cursors = _count_executions(self.connection)
            return object()
        return cursors.count

    def ask(self) -> Sequence[Sequence[str]]:
        cursor = self.connection.cursor(cursor_factory=sys.modules["psycopg2"].extensions.cursor)
        return _ask(self.connection, cursor)

    def begin(self, values: tuple[str, ...]) -> None:
        self._execute_with(f"BEGIN; {_FORMAT}", values)


class _CountingCursors:
    """The factory of one connection's cursors. The cursors count their statements."""

    __slots__ = ("count", "_kind")

    def __init__(self, kind: Any) -> None:
        self.count = 0
        self._kind = kind

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        cursor = self._kind(*arguments, **named)
        cursor._lead_audit_counter = self
        return cursor


def _count_executions(connection: Any) -> Optional[_CountingCursors]:
    """Makes the cursors of a connection count their statements. Returns the cursor factory or None.

    Returns None if the class of the connection overrides how cursors are made. The driver does not
    count the statements of a cursor that the application makes with `cursor(cursor_factory=…)`,
    because psycopg2, which is written in C, has no hook for this cursor.
    """
    extensions = sys.modules["psycopg2"].extensions
    present = connection.cursor_factory
    if isinstance(present, _CountingCursors):
        return present
    kind = extensions.cursor if present is None else present
    if type(connection).cursor is not extensions.connection.cursor or not isinstance(kind, type):
        return None
    made = connection.cursor_factory = _CountingCursors(_counting(kind))
    return made


@lru_cache(maxsize=50)
def _counting(kind: Any) -> Any:
    """Returns a subclass of the cursor class `kind` that counts its statements."""

    def counted(name: str) -> Any:
        method = getattr(kind, name)

        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            self._lead_audit_counter.count += 1
            return method(self, *arguments, **named)

        return run

    names = ("execute", "executemany", "callproc", "copy_expert", "copy_from", "copy_to")
    made = type(kind.__name__, (kind,), {name: counted(name) for name in names})
    made.__module__, made.__qualname__, made.__doc__ = (
        kind.__module__,
        kind.__qualname__,
        kind.__doc__,
    )
    return made


# ---- asyncpg ------------------------------------------------------------------------------------


class _AsyncpgUnwrapped(Driver):
    """A connection of asyncpg in a wrapper that the client does not know."""

    __slots__ = ()

    def status(self) -> Optional[int]:
        return IN_TRANSACTION if self.connection.is_in_transaction() else IDLE

    def activity(self) -> Any:
        found = getattr(getattr(self.connection, "_protocol", None), "queries_count", None)
        return object() if found is None else found


class _Asyncpg(_AsyncpgUnwrapped):
    __slots__ = ()

    def commits_by_itself(self) -> bool:
        return bool(self.dbapi.autocommit) or (
            self.dbapi._transaction is not None and not self.connection.is_in_transaction()
        )

    def ask(self) -> Sequence[Sequence[str]]:
        async def ask(connection: Any) -> Any:
            # asyncpg first prepares the query and then executes the query. Without BEGIN, a pooler
            # could prepare and execute the query on different server connections.
            await connection.execute("BEGIN")
            try:
                return await connection.fetch(may_write.QUERY)
            finally:
                await connection.execute("ROLLBACK")

        found: Sequence[Sequence[str]] = self.dbapi.run_async(ask)
        return found

    def send(self, values: tuple[str, ...]) -> None:
        self._run(set_config_text(values))

    def begin(self, values: tuple[str, ...]) -> None:
        self._run(f"BEGIN; {set_config_text(values)}")

    def end(self, command: str) -> None:
        self._run(command)

    def _run(self, statement: str) -> None:
        """Runs the statement `statement` without preparing it.

        To prepare the statement would take one more round trip, and a pooler could prepare it on
        another server connection.
        """
        logger.debug("lead_audit: %s", statement)
        dbapi = self.dbapi

        async def run(asyncpg: Any) -> None:
            async with dbapi._execute_mutex:
                if dbapi._transaction is None:  # SQLAlchemy's cursors check this too
                    await dbapi._start_transaction()  # does nothing in autocommit
                try:
                    await asyncpg.execute(statement)
                except Exception as error:
                    dbapi._handle_exception(error)

        dbapi.run_async(run)
