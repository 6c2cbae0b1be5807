"""Takes the context along into the transactions of SQLAlchemy 1.4 and 2.x, sync and async: one call of `attach()`.

Before the first statement of a transaction, and before a later one if the context has changed meanwhile, the context is set on
its connection by one `SELECT set_config(…, true), …`: one round trip, and none where nothing would change. What is set so
ends with the transaction, on the server's side; a pooled connection has nothing on it that another user could be blamed for.

It happens where SQLAlchemy hands a statement to the driver, so that an error is that statement's, wrapped, with a lost connection
noticed, as SQLAlchemy does it. Statements that must come first in their transaction (SET TRANSACTION, LOCK) do.

With AUTOCOMMIT a transaction-local setting would be over before the statement that it is for. There each statement that can write shares
a transaction with it: an implicit one, sent in one go, where the driver can (autocommit.py); else BEGIN with set_config, the statement, COMMIT.
All of that is in execution.py.
Nothing session-wide is ever set: behind a transaction pooler it would be another client's.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any, Callable, Final, Iterator, NamedTuple, Optional, Union

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from .catalog import Catalog
from .connection_state import ConnectionState
from .context import AuditContext
from .dbapi import IDLE, driver_for
from .execution import Execution
from .missing import OnMissing, Reporter
from .turns import Turns
from .watching import watch

__all__ = ["apply_context", "attach", "detach", "watch"]

logger = logging.getLogger("lead_audit")

# Keys in the info of a connection's record, which SQLAlchemy empties on a reconnect.
_STATE: Final = "lead_audit"
_TURNS: Final = "lead_audit_turns"


class _Attached(NamedTuple):
    """What there is for a dialect of PostgreSQL's that is attached to."""

    reporter: Reporter
    catalog: Catalog
    listeners: list[tuple[Any, str, Callable[..., Any]]]


_attached: weakref.WeakKeyDictionary[Any, Optional[_Attached]] = (
    weakref.WeakKeyDictionary()
)  # by dialect; None: not PostgreSQL
_factories: weakref.WeakKeyDictionary[Any, Callable[..., None]] = (
    weakref.WeakKeyDictionary()
)  # session factories, and their listener

Target = Union[Engine, AsyncEngine, "sessionmaker[Any]", "scoped_session[Any]", Any]
"""What attach() takes: an Engine, AsyncEngine, sessionmaker, async_sessionmaker, scoped_session or async_scoped_session."""


def attach(target: Target, on_missing: OnMissing = "warn") -> None:
    """From now on, each transaction of this engine, or of the engines of this session factory, has the current `AuditContext`.

    on_missing: what is done about a statement that can write and is executed without a context, or without a user. "warn": it is in the log
    (logger `lead_audit`), with its SQL, once for each place in the code. "raise": it is refused, by `MissingContext`. "ignore": nothing.

    A second call changes nothing. Engines of other databases than PostgreSQL are left alone, with a warning in the log: an application's
    tests may run on one.

    A statement's execution option `lead_audit=False` keeps it from being preceded by anything, and from being reported.
    """
    reporter = Reporter(on_missing)
    for engine in _engines(target):
        _attach_engine(engine, reporter)
    factory = _session_factory(target)
    if factory is not None and factory not in _factories:

        def begins(session: Session, transaction: Any, connection: Connection) -> None:
            _attach_engine(
                getattr(connection.engine, "_proxied", connection.engine), reporter
            )  # not what execution_options() gave

        # Sessions that get their engine when they are made, or by get_bind().
        event.listen(factory, "after_begin", begins)
        _factories[factory] = begins


def detach(target: Target) -> None:
    """Undoes `attach()`."""
    for engine in _engines(target):
        attached = _attached.pop(engine.dialect, None)
        if attached is not None:
            for listened, name, listener in attached.listeners:
                if event.contains(listened, name, listener):
                    event.remove(listened, name, listener)
    factory = _session_factory(target)
    if factory is not None and factory in _factories:
        event.remove(factory, "after_begin", _factories.pop(factory))


def apply_context(connection: Union[Connection, Session, Any]) -> None:
    """Sets the current context now, for what is then done past SQLAlchemy: a COPY on the driver's own connection, say.

    connection: a Session, a Connection, or what `engine.raw_connection()` gives. Also after what was done there, if it rolled back to a
    savepoint: the context is set, whatever was set before. It lasts until the transaction ends; there has to be
    one, so in AUTOCOMMIT this is an error. On other databases than PostgreSQL nothing is done. With an AsyncSession or AsyncConnection: `await session.run_sync(apply_context)`.
    """
    if isinstance(connection, (Session, scoped_session)):
        connection = connection.connection()
    if isinstance(connection, Connection):
        if connection.dialect.name != "postgresql":
            return
        connection = connection.connection
    dbapi = connection.dbapi_connection
    state = _state(connection.info, dbapi)
    driver = state.driver
    status = driver.status()
    if status is None:
        logger.warning(
            "lead_audit: apply_context() does not know the driver of a connection, and has set nothing on it"
        )
        return
    current = AuditContext.current()
    if status == IDLE and driver.commits_by_itself():
        raise InvalidRequestError(
            "there is no transaction that the audit context could be set for: the connection is in AUTOCOMMIT"
        )
    state.context = None  # not known, should this fail
    driver.send(current.settings())
    state.context, state.activity = current, driver.activity()


# ---- finding the engines -----------------------------------------------------------------------------------------------


def _session_factory(target: Any) -> Any:
    """The factory of sync sessions behind a target that is one, for the session's events."""
    while isinstance(target, scoped_session):
        target = target.session_factory
    if isinstance(target, sessionmaker):
        return _sync_class(target) or target
    if isinstance(target, type) and issubclass(target, Session):
        return target
    if hasattr(target, "session_factory"):  # async_scoped_session
        return _session_factory(target.session_factory)
    return _sync_class(target)  # async_sessionmaker


def _sync_class(factory: Any) -> Any:
    """Of a factory of AsyncSessions: a sync session class of its own, whose events are those of its sessions alone."""
    made = getattr(factory, "class_", None)
    if made is None or not hasattr(made, "sync_session_class") or not hasattr(factory, "kw"):
        return None
    present = factory.kw.get("sync_session_class", made.sync_session_class)
    if not getattr(present, "_lead_audit_own", False):
        present = type(present.__name__, (present,), {"_lead_audit_own": True})
        factory.kw["sync_session_class"] = present
    return present


def _engines(target: Any) -> Iterator[Engine]:
    if isinstance(target, Engine):
        yield target
    elif isinstance(target, Connection):
        yield target.engine
    elif hasattr(target, "sync_engine"):  # AsyncEngine, AsyncConnection
        yield from _engines(target.sync_engine)
    elif isinstance(target, scoped_session) or hasattr(target, "session_factory"):
        yield from _engines(target.session_factory)
    elif hasattr(target, "kw") and hasattr(target, "class_"):  # sessionmaker, async_sessionmaker
        binds = target.kw.get("binds") or {}
        for bind in (target.kw.get("bind"), *binds.values()):
            if bind is not None:
                yield from _engines(bind)
    elif not (isinstance(target, type) and issubclass(target, Session)):
        raise TypeError(
            f"attach() takes an Engine, an AsyncEngine or a session factory, not {type(target).__name__}"
        )


# ---- the hooks ---------------------------------------------------------------------------------------------------------


def _attach_engine(engine: Engine, reporter: Reporter) -> None:
    dialect = engine.dialect
    if dialect in _attached:
        return
    if dialect.name != "postgresql":
        logger.warning(
            "lead_audit: %s is not PostgreSQL, its transactions get no audit context", dialect.name
        )
        _attached[dialect] = None
        return
    attached = _attached[dialect] = _Attached(reporter, Catalog(), [])
    attached.listeners.extend(_listeners(engine, attached))
    for target, name, listener in attached.listeners:
        event.listen(target, name, listener)
        if name in _EXECUTING:
            _put_first(getattr(dialect.dispatch, name), listener)


def _put_first(listeners: Any, listener: Any) -> None:
    """Before the application's own, one of which may execute the statement: these are called from ours."""
    known: Any = getattr(listeners, "listeners", None)
    if known is not None and listener in known:
        known.remove(listener)
        known.appendleft(listener)


def _listeners(
    engine: Engine, attached: _Attached
) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    def connected(dbapi: Any, record: Any) -> None:
        attached.catalog.load(_state(record.info, dbapi).driver.ask)

    for name in _EXECUTING:
        yield engine, name, _executing(name, attached)
    yield engine.pool, "connect", connected
    if engine.dialect.driver not in _TELL_THEIR_STATUS:
        yield engine.pool, "checkin", _checked_in
        for name in ("commit", "rollback", "commit_twophase", "rollback_twophase"):
            yield engine, name, _transaction_over


# The drivers whose transactions need no events. An event on the engine slows down each of its statements.
_TELL_THEIR_STATUS: Final = frozenset({"psycopg", "psycopg_async", "psycopg2", "asyncpg"})
_EXECUTING: Final = ("do_execute", "do_execute_no_params", "do_executemany")


def _executing(event_name: str, attached: _Attached) -> Callable[..., bool]:
    """The listener for an event that has a statement run."""
    many = event_name == "do_executemany"
    catalog, reporter = attached.catalog, attached.reporter

    def run(cursor: Any, statement: str, *arguments: Any) -> bool:
        """Runs the statement as SQLAlchemy would, with the context. False: SQLAlchemy is to run it."""
        context = arguments[-1]
        if context.execution_options.get("lead_audit") is False:
            return False
        try:
            pooled = context.root_connection.connection
            dbapi = pooled.dbapi_connection
            info = pooled.info
        except (NotImplementedError, AttributeError):
            return False  # SQLAlchemy's own questions, on a connection that is not the pool's yet
        state = info.get(_STATE) or _state(info, dbapi)
        dialect = context.dialect
        if not dialect.is_async:

            def execute(stand_in: Optional[Any]) -> None:
                _execute(
                    dialect,
                    event_name,
                    run,
                    cursor if stand_in is None else stand_in,
                    statement,
                    arguments,
                )

            Execution(
                state,
                catalog,
                reporter,
                cursor,
                statement,
                many,
                execute,
                is_server_side=context._is_server_side,
            ).run()
            return True

        driven = cursor._cursor  # SQLAlchemy's wrapper around an async cursor

        def execute_async(stand_in: Optional[Any]) -> None:
            if stand_in is None:
                _execute(dialect, event_name, run, cursor, statement, arguments)
                return
            cursor._cursor = stand_in
            try:
                _execute(dialect, event_name, run, cursor, statement, arguments)
            finally:
                cursor._cursor = driven

        with _turns(info).turn(lambda waiter: dbapi.run_async(lambda connection: waiter)):
            Execution(
                state,
                catalog,
                reporter,
                driven,
                statement,
                many,
                execute_async,
                is_server_side=context._is_server_side,
            ).run()
        return True

    return run


def _execute(
    dialect: Any, event_name: str, own: Any, cursor: Any, statement: str, arguments: tuple[Any, ...]
) -> None:
    """What SQLAlchemy does once this module's listener has returned: the listeners after it, and the dialect if none of them has run it."""
    is_after = False
    for listener in getattr(dialect.dispatch, event_name):
        if is_after and listener(cursor, statement, *arguments):
            return
        is_after = is_after or listener is own
    getattr(dialect, event_name)(cursor, statement, *arguments)


def _turns(info: Any) -> Turns:
    found: Optional[Turns] = info.get(_TURNS)
    if found is None:
        found = info[_TURNS] = Turns()
    return found


# ---- the state of a connection -------------------------------------------------------------------------------------------


def _state(info: Any, dbapi: Any) -> ConnectionState:
    """Of a connection, kept in the info of its record."""
    state: Optional[ConnectionState] = info.get(_STATE)
    if state is None:
        state = info[_STATE] = ConnectionState(driver_for(dbapi))
    return state


def _transaction_over(connection: Connection, *_: Any) -> None:
    if connection.invalidated or connection.closed:
        return  # the connection is lost, and its state with it
    state = connection.connection.info.get(_STATE)
    if state is not None:
        state.transaction_over()


def _checked_in(dbapi: Any, record: Any) -> None:
    """A driver that says nothing of transactions: the next user of the connection finds out by setting all of it again."""
    state = record.info.get(_STATE) if record is not None else None
    if state is not None and dbapi is not None and state.driver.status() is None:
        state.context = None
