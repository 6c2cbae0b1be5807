"""Sends a statement together with its context as one transaction, for connections in autocommit.

`combining_cursor()` returns a stand-in for the driver's cursor. execution.py executes the statement
with the stand-in, which sends the context without a further round trip:

- psycopg 3: the stand-in sends a pipeline of BEGIN, set_config, the statement and COMMIT. If the
  statement fails, a ROLLBACK takes one more round trip.
- psycopg2: the stand-in sends one query string with `SELECT set_config(…);` on the first line and
  the statement on the next lines. The server runs the query string as one transaction. psycopg2
  quotes the values of the context.

If a statement has no stand-in, the client sends BEGIN before the statement and COMMIT after it. DDL
with psycopg2 has no stand-in, because the entry of a DDL command contains the whole query string.

`inserting_cursor()` returns a stand-in that inserts `SELECT set_config(…)` into a query string of
several statements.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable
from typing import Any, Callable, Final, Optional

from .context import AuditContext
from .drivers import is_pipelined, is_psycopg2
from .set_config import ascii_only, set_config, set_config_text
from .statements import Analysis, analyze

logger = logging.getLogger("lead_audit")

_UNPREPARED: Final = {"prepare": False}
_SET_CONFIG: Final = set_config(("%s", "%s", "%s", "%s"))


def combining_cursor(
    cursor: Any, analysis: Analysis, many: bool, context: AuditContext
) -> Optional[Any]:
    """Returns a stand-in for a cursor, or None if the client must send BEGIN and COMMIT."""
    cursor = _driven(cursor)
    connection = getattr(cursor, "connection", None)
    if getattr(cursor, "name", None) is not None or analysis.is_copy:
        return None  # a server-side cursor or COPY sends more than the statement
    psycopg: Any = sys.modules.get("psycopg")
    if psycopg is not None and isinstance(
        connection, (psycopg.Connection, psycopg.AsyncConnection)
    ):
        if is_pipelined(connection) or not _has_pipelines(psycopg) or analysis.several:
            return None
        made = _Pipelined if isinstance(connection, psycopg.Connection) else _PipelinedAsync
        return made(cursor, context.settings())
    if not many and not analysis.changes_schema and is_psycopg2(connection):
        return _Prefixed(cursor, context.settings())
    return None


def inserting_cursor(
    cursor: Any, context: AuditContext, is_set: bool, is_empty: bool
) -> Optional[Any]:
    """Returns a stand-in that inserts the context into a query string (see `Analysis.places`).

    Returns None if the driver accepts only one statement in a query string.
    """
    cursor = _driven(cursor)
    connection = getattr(cursor, "connection", None)
    psycopg: Any = sys.modules.get("psycopg")
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):
        return _InsertedAsync(cursor, context.settings(), is_set, is_empty)
    if psycopg is not None and isinstance(connection, psycopg.Connection):
        return _Inserted(cursor, context.settings(), is_set, is_empty)
    if is_psycopg2(connection):
        return _Inserted(cursor, context.settings(), is_set, is_empty)
    return None


def _driven(cursor: Any) -> Any:
    """Returns the driver's cursor. `cursor` can be a stand-in if a listener runs a statement with
    it."""
    while isinstance(cursor, _StandIn):
        cursor = cursor._cursor
    return cursor


def _has_pipelines(psycopg: Any) -> bool:
    pipeline = getattr(psycopg, "Pipeline", None)  # exists since psycopg 3.1
    return pipeline is not None and bool(pipeline.is_supported())  # False with libpq 13


class _StandIn:
    """A stand-in for a cursor that changes only how the cursor executes statements."""

    def __init__(self, cursor: Any, values: tuple[str, ...]) -> None:
        self._cursor = cursor
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _Pipelined(_StandIn):
    """A stand-in that sends a pipeline with psycopg 3.

    The stand-in turns off psycopg's prepared statements, except for executemany, which always uses
    a pipeline. If a prepared statement in the pipeline failed, psycopg would believe that the
    statement is prepared, and each later execution would fail. The stand-in sends COMMIT as a
    command, and does not let the Sync at the end of the pipeline commit. Neither libpq nor psycopg
    can recover from an error at a Sync, for example the error of a deferred constraint.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection = self._cursor.connection
        threshold, connection.prepare_threshold = connection.prepare_threshold, None
        try:
            return self._run(lambda: self._cursor.execute(query, params, **options))
        finally:
            connection.prepare_threshold = threshold

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> Any:
        return self._run(lambda: self._cursor.executemany(query, params_seq, **options))

    def _run(self, execute: Callable[[], Any]) -> Any:
        connection = self._cursor.connection
        own = _own_cursor(sys.modules["psycopg"].Cursor, connection)
        first: Optional[Exception] = None
        try:
            with connection.pipeline():
                try:
                    own.execute("BEGIN", **_UNPREPARED)
                    try:
                        own.execute(_SET_CONFIG, self._values, **_UNPREPARED)
                    except UnicodeEncodeError:  # psycopg raises it before sending
                        own.execute(_SET_CONFIG, ascii_only(self._values), **_UNPREPARED)
                    result = execute()
                    own.execute("COMMIT", **_UNPREPARED)
                except Exception as error:  # psycopg logs an error that leaves the block
                    first = error
            if first is not None:
                raise first
        except BaseException as error:
            interruption = _hidden_interruption(connection, error)
            self._roll_back()
            if interruption is not None:
                raise interruption from None
            if first is not None and isinstance(error, Exception):
                raise first from None
            raise
        return result

    def _roll_back(self) -> None:
        connection = self._cursor.connection
        try:
            if is_pipelined(connection):  # psycopg could not end the pipeline
                connection.close()
            elif not connection.closed:
                connection.rollback()
        except Exception:  # the connection is lost; the application gets the first error
            logger.debug("lead_audit: ROLLBACK failed", exc_info=True)


def _own_cursor(kind: Any, connection: Any) -> Any:
    """Returns a plain cursor, even if the application has set a cursor factory or row factory."""
    return kind(connection, row_factory=sys.modules["psycopg"].rows.tuple_row)


def _hidden_interruption(connection: Any, error: BaseException) -> Optional[BaseException]:
    """Returns the cancellation or Ctrl-C that caused the error of an unfinished pipeline, or None.

    Older versions of psycopg (3.1.7) raise the error of the pipeline instead of the interruption.
    """
    hidden: Optional[BaseException] = error if is_pipelined(connection) else None
    while isinstance(hidden, Exception):
        hidden = hidden.__context__
    return hidden


class _PipelinedAsync(_StandIn):
    """A stand-in that does the same as `_Pipelined` for async cursors."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection = self._cursor.connection
        threshold, connection.prepare_threshold = connection.prepare_threshold, None
        try:
            return await self._run(lambda: self._cursor.execute(query, params, **options))
        finally:
            connection.prepare_threshold = threshold

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> Any:
        return await self._run(lambda: self._cursor.executemany(query, params_seq, **options))

    async def _run(self, execute: Callable[[], Awaitable[Any]]) -> Any:
        connection = self._cursor.connection
        own = _own_cursor(sys.modules["psycopg"].AsyncCursor, connection)
        first: Optional[Exception] = None
        try:
            async with connection.pipeline():
                try:
                    await own.execute("BEGIN", **_UNPREPARED)
                    try:
                        await own.execute(_SET_CONFIG, self._values, **_UNPREPARED)
                    except UnicodeEncodeError:
                        await own.execute(_SET_CONFIG, ascii_only(self._values), **_UNPREPARED)
                    result = await execute()
                    await own.execute("COMMIT", **_UNPREPARED)
                except Exception as error:
                    first = error
            if first is not None:
                raise first
        except BaseException as error:
            interruption = _hidden_interruption(connection, error)
            await self._roll_back()
            if interruption is not None:
                raise interruption from None
            if first is not None and isinstance(error, Exception):
                raise first from None
            raise
        return result

    async def _roll_back(self) -> None:
        connection = self._cursor.connection
        try:
            if is_pipelined(connection):
                await connection.close()
            elif not connection.closed:
                await connection.rollback()
        except Exception:
            logger.debug("lead_audit: ROLLBACK failed", exc_info=True)


class _Prefixed(_StandIn):
    """A stand-in for psycopg2 that puts `SELECT set_config(…)` before the statement.

    The application sees only its own statement, because psycopg2 reports the result, the row count
    and the status of the last statement of a query string.
    """

    def execute(self, query: Any, vars: Any = None) -> Any:
        codec = _encoding(self._cursor.connection)
        statement = (
            query.decode(codec) if isinstance(query, bytes) else as_text(query, self._cursor)
        )
        # psycopg2 itself inserts the parameters into the statement, so wrong parameters cause
        # psycopg2's usual errors.
        try:
            prefix = self._cursor.mogrify(_SET_CONFIG, self._values)
        except UnicodeEncodeError:
            prefix = self._cursor.mogrify(_SET_CONFIG, ascii_only(self._values))
        prefix = prefix.decode(codec)
        if vars is not None:  # without parameters, psycopg2 does not interpret a percent sign
            prefix = prefix.replace("%", "%%")
        return self._cursor.execute(f"{prefix};\n{statement}", vars)


class _Inserted(_StandIn):
    """A stand-in that inserts set_config into a query string of several statements.

    The stand-in is for psycopg 3 and psycopg2. The stand-in writes the values of the context as
    hexadecimal digits.
    """

    def __init__(self, cursor: Any, values: tuple[str, ...], is_set: bool, is_empty: bool) -> None:
        super().__init__(cursor, values)
        self._is_set = is_set
        self._is_empty = is_empty
        self._is_first = False

    def _text(self, query: Any) -> str:
        text = as_text(query, self._cursor)
        analysis = analyze(text)
        places = analysis.places(self._is_set, self._is_empty)
        self._is_first = bool(places) and places[0] == analysis.only.start
        setting = f"{set_config_text(self._values)}; "
        parts = [text[start:end] for start, end in zip((0, *places), (*places, len(text)))]
        return setting.join(parts)

    def execute(self, query: Any, vars: Any = None, **options: Any) -> Any:
        result = self._cursor.execute(self._text(query), vars, **options)
        self._show_first_of_application()
        return result

    def _show_first_of_application(self) -> None:
        """Moves to the application's first result, if the first statement is set_config.

        psycopg 3 shows the first result of a query string, but psycopg2 shows the last result. So
        only a cursor of psycopg 3 has to move to another result.
        """
        if self._is_first and not is_psycopg2(self._cursor.connection):
            self._cursor.nextset()


class _InsertedAsync(_Inserted):
    """A stand-in that does the same as `_Inserted` for async cursors of psycopg 3."""

    async def execute(self, query: Any, vars: Any = None, **options: Any) -> Any:
        result = await self._cursor.execute(self._text(query), vars, **options)
        self._show_first_of_application()
        return result


def as_text(query: Any, cursor: Any) -> str:
    """Returns the text of a query, which can be a str, bytes or an SQL object of the driver."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(_encoding(cursor.connection), "replace")
    return str(query.as_string(cursor))


def _encoding(connection: Any) -> str:
    if is_psycopg2(connection):
        return str(sys.modules["psycopg2"].extensions.encodings[connection.encoding])
    return str(connection.info.encoding)
