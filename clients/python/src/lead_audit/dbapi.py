"""A connection as SQLAlchemy and Django have it, the driver's own or SQLAlchemy's wrapper around an async one: what its transaction is like,
and how a context is sent on it. For execution.py, which knows what context is wanted.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Final, Sequence, Union

from . import catalog
from .connection_state import ConnectionState, ascii_only, set_config, set_config_text

logger = logging.getLogger("lead_audit")

_IN_ERROR: Final = 3  # of psycopg's and libpq's transaction status
_ACTIVE: Final = 1
_IDLE: Final = 0
_PSYCOPG2_BEGUN: Final = 2  # psycopg2.extensions.STATUS_BEGIN: psycopg2 thinks that it is in a transaction

_FORMAT: Final = set_config(("%s", "%s", "%s", "%s"))
_NUMBERED: Final = set_config(("$1", "$2", "$3", "$4"))


# ---- its transaction -----------------------------------------------------------------------------------------------------


def in_transaction(dbapi: Any) -> Union[bool, None]:
    """What the driver knows of it; None if it is one that does not say. Asks nothing of the server."""
    status = _libpq_status(dbapi)
    if status is not None:
        return bool(status != _IDLE)
    is_in_transaction = getattr(driver_of(dbapi), "is_in_transaction", None)  # asyncpg
    return None if is_in_transaction is None else bool(is_in_transaction())


def commits_by_itself(dbapi: Any) -> bool:
    """Whether the driver begins no transaction before a statement: in autocommit, and after a COMMIT that it or its wrapper did not see."""
    if getattr(dbapi, "autocommit", False):
        return True
    if _is_asyncpg(dbapi):
        return dbapi._transaction is not None and not in_transaction(dbapi)
    return getattr(dbapi, "status", None) == _PSYCOPG2_BEGUN and _libpq_status(dbapi) == _IDLE


def failed(dbapi: Any) -> bool:
    """Whether the transaction is one in which only ROLLBACK works: then the statement itself is to say so."""
    return bool(_libpq_status(dbapi) == _IN_ERROR)


def busy(dbapi: Any) -> bool:
    """Whether it has sent something whose results it has not read: in a pipeline."""
    return bool(_libpq_status(dbapi) == _ACTIVE)


def activity(dbapi: Any) -> Any:
    """How many queries the driver has sent, by whomever, where it counts them (asyncpg); else None."""
    return getattr(getattr(driver_of(dbapi), "_protocol", None), "queries_count", None)


def follow_transactions(dbapi: Any, state: ConnectionState) -> None:
    """Has psycopg tell the state what is done with the connection's own methods for transactions: `transaction()` rolls back a savepoint
    that nobody else sees. (For asyncpg there is activity(); psycopg2 has no such method.)"""
    psycopg: Any = sys.modules.get("psycopg")
    connection = driver_of(dbapi)
    if psycopg is None or not isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection)):
        return
    is_followed = hasattr(connection, "_lead_audit_state")
    connection._lead_audit_state = state
    if not is_followed:
        _follow_methods(connection, isinstance(connection, psycopg.AsyncConnection))


def _follow_methods(connection: Any, is_async: bool) -> None:
    kind, reference = type(connection), weakref.ref(connection)  # not the connection itself: it would never be freed

    @contextmanager
    def transaction(*arguments: Any, **named: Any) -> Iterator[Any]:
        connection: Any = reference()
        try:
            with kind.transaction(connection, *arguments, **named) as made:
                yield made
        finally:
            connection._lead_audit_state.unknown()

    @asynccontextmanager
    async def transaction_async(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        connection: Any = reference()
        try:
            async with kind.transaction(connection, *arguments, **named) as made:
                yield made
        finally:
            connection._lead_audit_state.unknown()

    def ending(method: Any) -> Any:
        def end() -> Any:
            connection: Any = reference()
            connection._lead_audit_state.unknown()
            return method(connection)

        return end

    connection.transaction = transaction_async if is_async else transaction
    connection.commit, connection.rollback = ending(kind.commit), ending(kind.rollback)


def driver_of(dbapi: Any) -> Any:
    """The driver's own connection."""
    return getattr(dbapi, "driver_connection", dbapi)


def _libpq_status(dbapi: Any) -> Any:
    """The transaction status that psycopg and psycopg2 have from libpq; None for other drivers."""
    driver = getattr(dbapi, "driver_connection", dbapi)
    pgconn = getattr(driver, "pgconn", None)  # psycopg's, quicker than its info
    return getattr(getattr(driver, "info", None) if pgconn is None else pgconn, "transaction_status", None)


# ---- asking --------------------------------------------------------------------------------------------------------------


def ask(dbapi: Any) -> Sequence[Sequence[str]]:
    """The rows of `catalog.QUERY`. On a connection that is outside of any transaction, and is so afterwards."""
    psycopg: Any = sys.modules.get("psycopg")
    connection = driver_of(dbapi)
    found: Sequence[Sequence[str]]
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):

        async def ask_psycopg(connection: Any) -> Any:
            async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
                try:
                    await cursor.execute(catalog.QUERY, prepare=False)
                    return await cursor.fetchall()
                finally:
                    await connection.rollback()

        found = dbapi.run_async(ask_psycopg)
        return found
    if _is_asyncpg(dbapi):

        async def ask_asyncpg(connection: Any) -> Any:
            await connection.execute("BEGIN")  # what it prepares is on one connection only, behind a pooler
            try:
                return await connection.fetch(catalog.QUERY)
            finally:
                await connection.execute("ROLLBACK")

        found = dbapi.run_async(ask_asyncpg)
        return found
    if psycopg is not None and isinstance(connection, psycopg.Connection):
        cursor = psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row)
    elif _is_psycopg2(connection):
        cursor = connection.cursor(cursor_factory=sys.modules["psycopg2"].extensions.cursor)
    else:
        raise NotImplementedError("a driver that is not known")
    try:
        cursor.execute(catalog.QUERY)
        found = cursor.fetchall()
        return found
    finally:
        cursor.close()
        connection.rollback()


# ---- sending -------------------------------------------------------------------------------------------------------------


def send(dbapi: Any, values: tuple[str, ...]) -> None:
    """Sets the context for the present transaction, or for the one that the driver begins with it. One round trip, besides that of BEGIN."""
    if _is_asyncpg(dbapi):
        _run_simple(dbapi, set_config_text(values))
        return
    # psycopg and psycopg2 know %s only; wrappers of SQLAlchemy's say what they take.
    numbered = getattr(getattr(dbapi, "dbapi", None), "paramstyle", None) == "numeric_dollar"
    _execute_with(dbapi, _NUMBERED if numbered else _FORMAT, values)


def begin(dbapi: Any, values: tuple[str, ...]) -> None:
    """On a connection in autocommit: begins a transaction that has this context. One round trip with asyncpg and psycopg2."""
    if _is_asyncpg(dbapi):
        _run_simple(dbapi, f"BEGIN; {set_config_text(values)}")
    elif _is_psycopg2(dbapi):
        _execute_with(dbapi, f"BEGIN; {_FORMAT}", values)
    else:
        _execute(dbapi, "BEGIN")
        send(dbapi, values)


def end(dbapi: Any, command: str) -> None:
    """COMMIT or ROLLBACK, of what begin() has begun."""
    if _is_asyncpg(dbapi):
        _run_simple(dbapi, command)
    else:
        _execute(dbapi, command)


@contextmanager
def own_transaction(dbapi: Any, values: tuple[str, ...], translated: AbstractContextManager[Any] = nullcontext()) -> Iterator[None]:
    """On a connection in autocommit: a transaction that has this context, around a statement. translated: around the commands that make
    it, for who turns the driver's errors into its own."""
    try:
        with translated:
            begin(dbapi, values)
        yield
    except BaseException:
        try:
            end(dbapi, "ROLLBACK")
        except Exception:  # the connection is lost; the error that said so first is the one to tell
            logger.debug("lead_audit: ROLLBACK failed", exc_info=True)
        raise
    with translated:
        end(dbapi, "COMMIT")


def _execute_with(dbapi: Any, statement: str, values: tuple[str, ...]) -> None:
    try:
        _execute(dbapi, statement, values)
    except UnicodeEncodeError:
        _execute(dbapi, statement, ascii_only(values))


def _execute(dbapi: Any, statement: str, *parameters: Any) -> None:
    logger.debug("lead_audit: %s %s", statement, parameters)
    cursor = dbapi.cursor()
    try:
        cursor.execute(statement, *parameters)
    finally:
        cursor.close()


def _is_psycopg2(dbapi: Any) -> bool:
    psycopg2: Any = sys.modules.get("psycopg2")
    return psycopg2 is not None and isinstance(dbapi, psycopg2.extensions.connection)


def _is_asyncpg(dbapi: Any) -> bool:
    """SQLAlchemy's wrapper around asyncpg, with what _run_simple() needs of it: the same from 1.4 to 2.1."""
    needed = ("_execute_mutex", "_transaction", "_start_transaction", "_handle_exception")
    return hasattr(driver_of(dbapi), "is_in_transaction") and all(hasattr(dbapi, name) for name in needed)


def _run_simple(dbapi: Any, statement: str) -> None:
    """Runs it with asyncpg without preparing it, which would take a round trip more, and with a pooler may happen on another connection."""
    logger.debug("lead_audit: %s", statement)

    async def run(asyncpg: Any) -> None:
        async with dbapi._execute_mutex:
            if dbapi._transaction is None:  # as SQLAlchemy's cursors do it; nothing in autocommit
                await dbapi._start_transaction()
            try:
                await asyncpg.execute(statement)
            except Exception as error:
                dbapi._handle_exception(error)

    dbapi.run_async(run)
