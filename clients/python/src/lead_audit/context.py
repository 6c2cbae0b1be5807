"""On whose behalf the application works: the context that each entry of the audit trail gets from it.

It lives in a context variable: it goes along with `await` and with tasks that are started, and no other request, task or
thread sees it. Whoever passes it to the database (sqlalchemy.py, django/) reads it by `AuditContext.current()`, right
before each statement.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Iterator, Optional, Type

from . import fields

_KEEP: Any = object()  # an argument that was not given


class AuditContext:
    """User id, IP address, user agent and request id; immutable.

    As a context manager it is the current context inside its block, whatever was current around it:

        with AuditContext(user_id="u-17", user_ip="203.0.113.7"):
            ...

    Values that do not fit are made to (see `fields`): texts are cut off and cleaned, `user_ip` is None unless it is an address.
    """

    __slots__ = ("user_id", "user_ip", "user_agent", "request_id")

    user_id: Final[Optional[str]]  # type: ignore[misc]
    user_ip: Final[Optional[str]]  # type: ignore[misc]
    user_agent: Final[Optional[str]]  # type: ignore[misc]
    request_id: Final[Optional[str]]  # type: ignore[misc]

    def __init__(
        self,
        user_id: object = None,
        user_ip: object = None,
        user_agent: object = None,
        request_id: object = None,
    ) -> None:
        put = object.__setattr__
        put(self, "user_id", fields.text(user_id, fields.USER_ID_LENGTH))
        put(self, "user_ip", fields.address(user_ip))
        put(self, "user_agent", fields.text(user_agent, fields.USER_AGENT_LENGTH))
        put(self, "request_id", fields.text(request_id, fields.REQUEST_ID_LENGTH))

    @staticmethod
    def current() -> AuditContext:
        """The context as of now; an empty one if there is none."""
        return _scope.get().context

    @staticmethod
    def set(context: AuditContext) -> None:
        """Makes this the current context, for the rest of the present task or thread, or of the block that it is in."""
        present = _scope.get()
        if present.is_request:  # a scope of its own inside of it, so that the rest of the request does not see this
            _scope.set(_Scope(context, present))
        else:
            _scope.set(_Scope(context, present.around, present.block))

    @staticmethod
    def clear() -> None:
        """Empties the context, for the rest of the present task or thread."""
        AuditContext.set(EMPTY)

    def replace(
        self,
        *,
        user_id: object = _KEEP,
        user_ip: object = _KEEP,
        user_agent: object = _KEEP,
        request_id: object = _KEEP,
    ) -> AuditContext:
        """The same context but for the fields that are given."""
        return AuditContext(
            self.user_id if user_id is _KEEP else user_id,
            self.user_ip if user_ip is _KEEP else user_ip,
            self.user_agent if user_agent is _KEEP else user_agent,
            self.request_id if request_id is _KEEP else request_id,
        )

    def settings(self) -> tuple[str, str, str, str]:
        """The values of the settings lead_audit.user_id, user_ip, user_agent and request_id; empty for what is not known."""
        return self.user_id or "", self.user_ip or "", self.user_agent or "", self.request_id or ""

    def __enter__(self) -> AuditContext:
        _scope.set(_Scope(self, _scope.get(), block=self))
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        _leave(self)

    def __bool__(self) -> bool:
        return any(self.settings())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AuditContext) and self.settings() == other.settings()

    def __hash__(self) -> int:
        return hash(self.settings())

    def __repr__(self) -> str:
        known = ((name, getattr(self, name)) for name in self.__slots__)
        return f"AuditContext({', '.join(f'{name}={value!r}' for name, value in known if value is not None)})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an AuditContext cannot be changed: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an AuditContext cannot be changed")

    def __reduce__(self) -> tuple[Type[AuditContext], tuple[Optional[str], ...]]:
        return AuditContext, (self.user_id, self.user_ip, self.user_agent, self.request_id)


EMPTY: Final = AuditContext()
"""The context of which nothing is known."""


class _Scope:
    """A block in which a context is current, and the one around it.

    A request is such a block whose context can still be changed from inside: by `identify()`, from wherever the request is worked
    on. That is why this is an object and not the context itself.
    """

    __slots__ = ("context", "around", "block", "is_request")

    def __init__(
        self, context: AuditContext, around: Optional[_Scope], block: Optional[object] = None, is_request: bool = False
    ) -> None:
        self.context = context
        self.around = around
        self.block = block  # what the block is known by when it is left: its context, or an object of the request's own
        self.is_request = is_request


_scope: ContextVar[_Scope] = ContextVar("lead_audit", default=_Scope(EMPTY, None))


def _leave(block: object) -> None:
    """Back to what was current around the innermost block of that name, whatever was set in it."""
    scope: Optional[_Scope] = _scope.get()
    while scope is not None:
        if scope.block is block and scope.around is not None:
            _scope.set(scope.around)
            return
        scope = scope.around


@contextmanager
def audit_context(
    *,
    user_id: object = _KEEP,
    user_ip: object = _KEEP,
    user_agent: object = _KEEP,
    request_id: object = _KEEP,
) -> Iterator[AuditContext]:
    """A block in which the given fields of the context are these; the others stay as they are around it.

    with audit_context(user_id="nightly-import"):
        ...
    """
    changed = AuditContext.current().replace(user_id=user_id, user_ip=user_ip, user_agent=user_agent, request_id=request_id)
    with changed:
        yield changed


def identify(
    user_id: object = _KEEP,
    *,
    user_ip: object = _KEEP,
    user_agent: object = _KEEP,
    request_id: object = _KEEP,
) -> None:
    """Says, inside a request, who it is from: from then on the whole request has these fields.

    Meant for where the application finds out, be it a dependency or a view, also one that runs in another thread or task of the
    request. Outside of a request it is the present task or thread whose context is changed. A block inside of the request
    keeps its own.
    """
    present = _scope.get()
    scope: Optional[_Scope] = present
    while scope is not None and not scope.is_request:
        scope = scope.around
    target = present if scope is None else scope
    changed = target.context.replace(user_id=user_id, user_ip=user_ip, user_agent=user_agent, request_id=request_id)
    if scope is None:
        AuditContext.set(changed)
    else:
        scope.context = changed


@contextmanager
def request_context(context: AuditContext) -> Iterator[None]:
    """A block that is one request, for middleware: its context is this, until `identify()` says more."""
    request = object()
    _scope.set(_Scope(context, _scope.get(), request, is_request=True))
    try:
        yield
    finally:
        _leave(request)
