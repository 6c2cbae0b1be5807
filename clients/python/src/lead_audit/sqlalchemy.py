"""Provides `attach()`, which sets the context in transactions of SQLAlchemy 1.4 and 2.x.

Before the first statement of a transaction, the client sends one `SELECT set_config(…, true), …`.
If the context changes during the transaction, the client sends set_config again before the next
statement. On the server, the settings end with the transaction. The client never sets a value for
the whole session, because behind a pooler the session's next user would inherit the value.
execution.py implements these rules.

The client listens to the events with which SQLAlchemy passes a statement to the driver. So
SQLAlchemy still wraps the errors of the statement as usual, and notices a lost connection.
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

from .context import AuditContext
from .drivers import IDLE, driver_for
from .execution import Execution
from .may_write import Catalog
from .missing_context import OnMissing, Reporter
from .task_lock import TaskLock
from .tracked_context import TrackedContext
from .watching import watch

__all__ = ["apply_context", "attach", "detach", "watch"]

logger = logging.getLogger("lead_audit")

# Keys in the `info` dict of a pooled connection. SQLAlchemy empties this dict on a reconnect.
_STATE: Final = "lead_audit"
_TASK_LOCK: Final = "lead_audit_task_lock"


class _Attached(NamedTuple):
    """The objects that attach() makes for one dialect."""

    reporter: Reporter
    catalog: Catalog
    listeners: list[tuple[Any, str, Callable[..., Any]]]


# The key is a dialect. The value is None if the dialect is not PostgreSQL's.
_attached: weakref.WeakKeyDictionary[Any, Optional[_Attached]] = weakref.WeakKeyDictionary()
# The session factories for which attach() was called, each with its listener.
_factories: weakref.WeakKeyDictionary[Any, Callable[..., None]] = weakref.WeakKeyDictionary()

Target = Union[Engine, AsyncEngine, "sessionmaker[Any]", "scoped_session[Any]", Any]
"""An engine or a session factory: a sessionmaker, a scoped_session or their async versions."""


def attach(target: Target, on_missing: OnMissing = "warn") -> None:
    """Sets the current context in each transaction of an engine or of a session factory.

    on_missing: specifies the reaction to a statement that can write and has no context or no user.
    "warn", the default, logs the SQL of the statement (logger `lead_audit`), once for each place in
    the code. "raise" raises `MissingContext` instead of executing the statement. "ignore" does
    nothing.

    A second call for the same target changes nothing. For an engine whose database is not
    PostgreSQL, the function logs a warning and does nothing. The function raises no error, because
    the tests of an application can use an engine of another database.

    The client ignores a statement with the execution option `lead_audit=False`.
    """
    reporter = Reporter(on_missing)
    for engine in _engines(target):
        _attach_engine(engine, reporter)
    factory = _session_factory(target)
    if factory is not None and factory not in _factories:

        def begins(session: Session, transaction: Any, connection: Connection) -> None:
            # Takes the original engine, because `connection.engine` can be a copy that
            # execution_options() has made.
            _attach_engine(getattr(connection.engine, "_proxied", connection.engine), reporter)

        # Listens to after_begin, because some sessions get their engine only in the constructor or
        # from get_bind().
        event.listen(factory, "after_begin", begins)
        _factories[factory] = begins


def detach(target: Target) -> None:
    """Reverses the effects of `attach()` for the target."""
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
    """Sets the current context at once, for statements that bypass SQLAlchemy (a driver's COPY).

    connection: a Session, a Connection, or the result of `engine.raw_connection()`. For an
    AsyncSession or AsyncConnection, call `await session.run_sync(apply_context)`.

    The function always sends the context, which lasts until the transaction ends. In AUTOCOMMIT no
    transaction is open, so the function raises InvalidRequestError. If the database is not
    PostgreSQL, the function does nothing.
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
            "lead_audit: apply_context() does not know the driver of a connection, "
            "and has set nothing on it"
        )
        return
    current = AuditContext.current()
    if status == IDLE and driver.commits_by_itself():
        raise InvalidRequestError(
            "the connection is in AUTOCOMMIT: there is no transaction to set the audit context for"
        )
    state.context = None  # the context stays unknown if send() fails
    driver.send(current.settings())
    state.context, state.activity = current, driver.activity()


# ---- finding the engines ------------------------------------------------------------------------


def _session_factory(target: Any) -> Any:
    """Returns the factory of sync sessions behind a target, or None if the target is no factory."""
    while isinstance(target, scoped_session):
        target = target.session_factory
    if isinstance(target, sessionmaker):
        return _sync_class(target) or target
    if isinstance(target, type) and issubclass(target, Session):
        return target
    if hasattr(target, "session_factory"):  # the target is an async_scoped_session
        return _session_factory(target.session_factory)
    return _sync_class(target)  # the target is an async_sessionmaker


def _sync_class(factory: Any) -> Any:
    """Gives a factory of AsyncSessions its own sync session class, and returns this class.

    A listener on this class affects only the sessions of this factory. Returns None if `factory` is
    no factory of AsyncSessions.
    """
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
    elif hasattr(target, "sync_engine"):  # an AsyncEngine or AsyncConnection
        yield from _engines(target.sync_engine)
    elif isinstance(target, scoped_session) or hasattr(target, "session_factory"):
        yield from _engines(target.session_factory)
    elif hasattr(target, "kw") and hasattr(target, "class_"):  # [async_]sessionmaker
        binds = target.kw.get("binds") or {}
        for bind in (target.kw.get("bind"), *binds.values()):
            if bind is not None:
                yield from _engines(bind)
    elif not (isinstance(target, type) and issubclass(target, Session)):
        raise TypeError(
            "attach() takes an Engine, an AsyncEngine or a session factory, "
            f"not {type(target).__name__}"
        )


# ---- the listeners ------------------------------------------------------------------------------


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
    """Moves the client's listener to the front, because other listeners can run the statement."""
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


# The drivers that report the state of the transaction. For these drivers, the client does not
# listen to the end of transactions, because this listener would slow down each statement of the
# engine.
_TELL_THEIR_STATUS: Final = frozenset({"psycopg", "psycopg_async", "psycopg2", "asyncpg"})
_EXECUTING: Final = ("do_execute", "do_execute_no_params", "do_executemany")


def _executing(event_name: str, attached: _Attached) -> Callable[..., bool]:
    """Makes the listener for one of the events that SQLAlchemy emits to execute a statement."""
    many = event_name == "do_executemany"
    catalog, reporter = attached.catalog, attached.reporter

    def run(cursor: Any, statement: str, *arguments: Any) -> bool:
        """Runs the statement, or returns False if SQLAlchemy must run it itself."""
        context = arguments[-1]
        if context.execution_options.get("lead_audit") is False:
            return False
        try:
            pooled = context.root_connection.connection
            dbapi = pooled.dbapi_connection
            info = pooled.info
        except (NotImplementedError, AttributeError):
            return False  # SQLAlchemy queries a connection that is not in the pool yet
        state = info.get(_STATE) or _state(info, dbapi)
        dialect = context.dialect
        if not dialect.is_async:

            def execute(stand_in: Optional[Any]) -> None:
                used = cursor if stand_in is None else stand_in
                _execute(dialect, event_name, run, used, statement, arguments)

            one = Execution(state, catalog, reporter, cursor, statement, many, execute)
            one.is_server_side = context._is_server_side
            one.run()
            return True

        driven = cursor._cursor  # the cursor is SQLAlchemy's wrapper around an async cursor

        def execute_async(stand_in: Optional[Any]) -> None:
            if stand_in is None:
                _execute(dialect, event_name, run, cursor, statement, arguments)
                return
            cursor._cursor = stand_in
            try:
                _execute(dialect, event_name, run, cursor, statement, arguments)
            finally:
                cursor._cursor = driven

        with _task_lock(info).hold(lambda waiter: dbapi.run_async(lambda connection: waiter)):
            one = Execution(state, catalog, reporter, driven, statement, many, execute_async)
            one.is_server_side = context._is_server_side
            one.run()
        return True

    return run


def _execute(
    dialect: Any, event_name: str, own: Any, cursor: Any, statement: str, arguments: tuple[Any, ...]
) -> None:
    """Runs the statement as SQLAlchemy does: with a later listener, or else with the dialect."""
    is_after = False
    for listener in getattr(dialect.dispatch, event_name):
        if is_after and listener(cursor, statement, *arguments):
            return
        is_after = is_after or listener is own
    getattr(dialect, event_name)(cursor, statement, *arguments)


def _task_lock(info: Any) -> TaskLock:
    found: Optional[TaskLock] = info.get(_TASK_LOCK)
    if found is None:
        found = info[_TASK_LOCK] = TaskLock()
    return found


# ---- the state of a connection ------------------------------------------------------------------


def _state(info: Any, dbapi: Any) -> TrackedContext:
    """Returns the state of a connection, which the info of its pool record contains."""
    state: Optional[TrackedContext] = info.get(_STATE)
    if state is None:
        state = info[_STATE] = TrackedContext(driver_for(dbapi))
    return state


def _transaction_over(connection: Connection, *_: Any) -> None:
    if connection.invalidated or connection.closed:
        return  # the connection is lost, so its state does not matter
    state = connection.connection.info.get(_STATE)
    if state is not None:
        state.transaction_over()


def _checked_in(dbapi: Any, record: Any) -> None:
    """Discards the state of a returned connection if its driver does not report transactions."""
    state = record.info.get(_STATE) if record is not None else None
    if state is not None and dbapi is not None and state.driver.status() is None:
        state.context = None
