"""The wrapper that runs each statement of a Django connection with execution.py.

Django's connections are in autocommit by default. In autocommit, each statement that can write
shares a transaction with the set_config of its context. With `transaction.atomic()` or
ATOMIC_REQUESTS, a whole transaction needs only one set_config.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Optional

from lead_audit.autocommit import as_text
from lead_audit.drivers import IDLE, driver_for
from lead_audit.execution import Execution
from lead_audit.may_write import Catalog
from lead_audit.missing_context import Reporter
from lead_audit.tracked_context import TrackedContext

from .options import options


def attach(connection: Any) -> None:
    """Makes the statements of a connection run with the current context.

    A second call for the same connection changes nothing.
    """
    if connection.vendor != "postgresql":
        return
    if not any(isinstance(wrapper, ContextWrapper) for wrapper in connection.execute_wrappers):
        # Inserts the wrapper at the first position, because the end of a block of Django's
        # `execute_wrapper()` removes the last wrapper.
        connection.execute_wrappers.insert(0, ContextWrapper())
    raw = connection.connection
    if raw is not None:
        driver = driver_for(raw)
        if driver.status() == IDLE:
            _catalog(connection).load(driver.ask)


class ContextWrapper:
    """A wrapper in Django's `execute_wrappers` that holds the state of its connection."""

    def __init__(self) -> None:
        self._raw: Any = None
        self._state: Any = None  # the TrackedContext that belongs to `_raw`

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        connection = context["connection"]
        raw = connection.connection
        if raw is not self._raw:
            self._raw, self._state = raw, TrackedContext(driver_for(raw))
        cursor = context["cursor"]  # Django's wrapper around the driver's cursor
        driven = cursor.cursor

        def run(stand_in: Optional[Any]) -> Any:
            if stand_in is None:
                return execute(sql, params, many, context)
            cursor.cursor = stand_in
            try:
                return execute(sql, params, many, context)
            finally:
                cursor.cursor = driven

        return Execution(
            self._state,
            _catalog(connection),
            reporter(),
            driven,
            as_text(sql, driven),
            many,
            run,
            connection.wrap_database_errors,
        ).run()


# All connections to a database share one Catalog. Each thread of Django has its own connections,
# and would otherwise read the catalog again.
_catalogs: dict[tuple[str, ...], Catalog] = {}


def _catalog(connection: Any) -> Catalog:
    settings = connection.settings_dict
    key = tuple(str(settings.get(name)) for name in ("HOST", "PORT", "NAME"))
    found = _catalogs.get(key)
    return found if found is not None else _catalogs.setdefault(key, Catalog())


@lru_cache(maxsize=1)
def reporter() -> Reporter:
    """Returns the reporter that all connections share."""
    return Reporter(options().on_missing)
