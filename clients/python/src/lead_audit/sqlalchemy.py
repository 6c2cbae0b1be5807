"""Takes the context along into the transactions of SQLAlchemy 1.4 and 2.x, sync and async: one call of `attach()`.

Before the first statement of a transaction, and before a later one if the context has changed meanwhile, the context is set on
its connection by one `SELECT set_config(…, true), …`: one round trip, and none where nothing would change. What is set so
ends with the transaction, on the server's side; a pooled connection has nothing on it that another user could be blamed for.

It happens where SQLAlchemy hands a statement to the driver, so that an error is that statement's, wrapped, with a lost connection
noticed, as SQLAlchemy does it. Statements that must come first in their transaction (SET TRANSACTION, LOCK) do.

With AUTOCOMMIT a transaction-local setting would be over before the statement that it is for. There each statement that can write shares
a transaction with it: an implicit one, sent in one go, where the driver can (together.py); else BEGIN with set_config, the statement, COMMIT.
Nothing session-wide is ever set: behind a transaction pooler it would be another client's.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any, Callable, Final, Iterator, Union

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from .applied import AppliedContext
from .context import AuditContext
from .dbapi import busy, commits_by_itself, driver_of, failed, in_transaction, own_transaction, send
from .statements import may_commit, wants_context
from .together import in_pipeline, together
from .watching import watch

__all__ = ["apply_context", "attach", "detach", "watch"]

logger = logging.getLogger("lead_audit")

_STATE: Final = "lead_audit"  # key of the connection's state in its record's info, which SQLAlchemy empties on a reconnect

_attached: weakref.WeakSet[Any] = weakref.WeakSet()  # dialects and session factories

Target = Union[Engine, AsyncEngine, "sessionmaker[Any]", "scoped_session[Any]", Any]
"""What attach() takes: an Engine, AsyncEngine, sessionmaker, async_sessionmaker, scoped_session or async_scoped_session."""


def attach(target: Target) -> None:
    """From now on, each transaction of this engine, or of the engines of this session factory, has the current `AuditContext`.

    A second call changes nothing. Engines of other databases than PostgreSQL are left alone, with a warning in the log
    (logger `lead_audit`): an application's tests may run on one.

    A statement's execution option `lead_audit=False` keeps it from being preceded by anything.
    """
    for engine in _engines(target):
        _attach_engine(engine)
    factory = _session_factory(target)
    if factory is not None and factory not in _attached:
        # Sessions that get their engine when they are made, or by get_bind().
        event.listen(factory, "after_begin", _session_begins)
        _attached.add(factory)


def detach(target: Target) -> None:
    """Undoes `attach()`."""
    for engine in _engines(target):
        if engine.dialect in _attached:
            for listened, name, listener in _listeners(engine):
                if event.contains(listened, name, listener):
                    event.remove(listened, name, listener)
            _attached.discard(engine.dialect)
    factory = _session_factory(target)
    if factory is not None and factory in _attached:
        event.remove(factory, "after_begin", _session_begins)
        _attached.discard(factory)


def apply_context(connection: Union[Connection, Session, Any]) -> None:
    """Sets the current context now, for what is then done past SQLAlchemy: a COPY on the driver's own connection, say.

    connection: a Session, a Connection, or what `engine.raw_connection()` gives. It lasts until the transaction ends; there has to be
    one, so in AUTOCOMMIT this is an error. On other databases than PostgreSQL nothing is done. With an AsyncSession or AsyncConnection: `await session.run_sync(apply_context)`.
    """
    if isinstance(connection, (Session, scoped_session)):
        connection = connection.connection()
    if isinstance(connection, Connection):
        if connection.dialect.name != "postgresql":
            return
        connection = connection.connection
    dbapi = connection.dbapi_connection
    if in_transaction(dbapi) is None:
        logger.warning("lead_audit: apply_context() does not know the driver of a connection, and has set nothing on it")
        return
    state = _state(connection, dbapi)
    current = AuditContext.current()
    if state.context == current:
        return
    if not in_transaction(dbapi) and commits_by_itself(dbapi):
        raise InvalidRequestError("there is no transaction that the audit context could be set for: the connection is in AUTOCOMMIT")
    _send(state, dbapi, current)


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
        raise TypeError(f"attach() takes an Engine, an AsyncEngine or a session factory, not {type(target).__name__}")


def _session_begins(session: Session, transaction: Any, connection: Connection) -> None:
    _attach_engine(getattr(connection.engine, "_proxied", connection.engine))  # not what execution_options() gave


# ---- the hooks ---------------------------------------------------------------------------------------------------------


def _attach_engine(engine: Engine) -> None:
    dialect = engine.dialect
    if dialect in _attached:
        return
    if dialect.name != "postgresql":
        logger.warning("lead_audit: %s is not PostgreSQL, its transactions get no audit context", dialect.name)
        _attached.add(dialect)
        return
    for target, name, listener in _listeners(engine):
        event.listen(target, name, listener)
    _attached.add(dialect)


def _listeners(engine: Engine) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    if engine.dialect.name != "postgresql":
        return ()
    return (
        (engine, "do_execute", _do_execute),
        (engine, "do_execute_no_params", _do_execute_no_params),
        (engine, "do_executemany", _do_executemany),
        (engine.pool, "checkin", _checked_in),
        (engine, "commit", _transaction_over),
        (engine, "rollback", _transaction_over),
        (engine, "commit_twophase", _transaction_over),
        (engine, "rollback_twophase", _transaction_over),
    )


def _do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    return _run(context, cursor, statement, False, lambda cursor: context.dialect.do_execute(cursor, statement, parameters, context))


def _do_execute_no_params(cursor: Any, statement: str, context: Any) -> bool:
    return _run(context, cursor, statement, False, lambda cursor: context.dialect.do_execute_no_params(cursor, statement, context))


def _do_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    return _run(context, cursor, statement, True, lambda cursor: context.dialect.do_executemany(cursor, statement, parameters, context))


def _run(context: Any, cursor: Any, statement: str, many: bool, execute: Callable[[Any], None]) -> bool:
    """Sets what is to be set before a statement. True if it has run the statement as well."""
    if context.execution_options.get("lead_audit") is False:
        return False
    connection = context.root_connection
    try:
        dbapi = connection.connection.dbapi_connection
        state = _state(connection.connection, dbapi)
    except (NotImplementedError, AttributeError):
        return False  # SQLAlchemy's own questions, on a connection that is not the pool's yet
    wanted = state.missing(statement)
    if wanted is None:
        return False
    if in_transaction(dbapi) or not commits_by_itself(dbapi):
        if not failed(dbapi):
            _send(state, dbapi, wanted)
        return False
    if context._is_server_side or not wants_context(statement):
        if may_commit(statement):
            logger.warning("lead_audit: in AUTOCOMMIT this has no audit context, since it may commit by itself: %.100s", statement)
        return False
    if in_pipeline(driver_of(dbapi)):  # of the application's
        _send(state, dbapi, wanted)
        return False
    if not _run_together(cursor, statement, many, wanted, execute):
        with own_transaction(dbapi, wanted.settings()):
            execute(cursor)
    return True


def _run_together(cursor: Any, statement: str, many: bool, wanted: AuditContext, execute: Callable[[Any], None]) -> bool:
    """Runs the statement with its context in one round trip, if that can be done."""
    driven = getattr(cursor, "_cursor", None)  # SQLAlchemy's wrapper around an async cursor
    stand_in = together(cursor if driven is None else driven, statement, many, wanted)
    if stand_in is None:
        return False
    logger.debug("lead_audit: together with the statement: %s", wanted)
    if driven is None:
        execute(stand_in)
        return True
    cursor._cursor = stand_in
    try:
        execute(cursor)
    finally:
        cursor._cursor = driven
    return True


def _send(state: AppliedContext, dbapi: Any, wanted: AuditContext) -> None:
    state.context = None  # not known, should this fail
    send(dbapi, wanted.settings())
    state.context = wanted


# ---- the state of a connection -------------------------------------------------------------------------------------------


def _state(pooled: Any, dbapi: Any) -> AppliedContext:
    """pooled: the pool's connection, around the driver's."""
    info = pooled.info
    state = info.get(_STATE)
    if not isinstance(state, AppliedContext):
        state = info[_STATE] = AppliedContext()
    if in_transaction(dbapi) is False:
        state.transaction_over()
    elif busy(dbapi) and commits_by_itself(dbapi) and in_pipeline(driver_of(dbapi)):
        state.context = None  # the transaction that it was set in is over with the pipeline's next Sync, whoever sends that
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
    if state is not None and dbapi is not None and in_transaction(dbapi) is None:
        state.context = None
