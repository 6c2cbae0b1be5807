"""The context: the user for whom the application works. Each entry records the context.

The context is stored in a context variable. `await` keeps the context, and new tasks inherit the
context. Other requests, tasks and threads do not see the context. sqlalchemy.py and django/ read
the context before each statement.

The context variable holds the innermost scope. A scope is either a block or a request. `with
AuditContext(…)` is a block that sets all fields. `audit_context(…)` is a block that sets only the
given fields. `identify()` changes the fields of a request. The current context results from all
scopes: an inner scope overrides fields of outer scopes.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Callable, Final, Iterator, Mapping, Optional, Type

from . import sanitize

KEEP: Any = object()
"""The default of an argument. With this default, the argument's field keeps its value."""


class AuditContext:
    """An immutable context: user id, IP address, user agent and request id.

    An AuditContext is also a context manager, which makes it the current context within its block:

        with AuditContext(user_id="u-17", user_ip="203.0.113.7"):
            ...

    The constructor changes values that do not fit (see `sanitize`). The constructor cleans and
    shortens texts, and replaces a `user_ip` that is no address with None.
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
        for name, value in _cleaned(user_id, user_ip, user_agent, request_id).items():
            object.__setattr__(self, name, value)

    @staticmethod
    def current() -> AuditContext:
        """Returns the current context, which is empty if none was set.

        In a request of Django, outside of an event loop, this call also finds the user.
        """
        return _context_of(_scope.get(), not _in_event_loop())

    @staticmethod
    def set(context: AuditContext) -> None:
        """Makes `context` the current context for the rest of the block, task or thread."""
        present = _scope.get()
        if (
            present.request is not None
        ):  # a new scope, because other parts of the request keep their context
            _scope.set(_Scope(context, around=present))
        else:
            _scope.set(
                _Scope(
                    context,
                    around=present.around,
                    block=present.block,
                    is_detached=present.is_detached,
                )
            )

    @staticmethod
    def clear() -> None:
        """Empties the context for the rest of the block, task or thread."""
        AuditContext.set(EMPTY)

    def replace(
        self,
        *,
        user_id: object = KEEP,
        user_ip: object = KEEP,
        user_agent: object = KEEP,
        request_id: object = KEEP,
    ) -> AuditContext:
        """Returns a copy of this context with the given fields."""
        return self._with(_cleaned(user_id, user_ip, user_agent, request_id))

    def _with(self, cleaned: Mapping[str, Optional[str]]) -> AuditContext:
        made = object.__new__(AuditContext)
        for name in AuditContext.__slots__:
            object.__setattr__(
                made, name, cleaned[name] if name in cleaned else getattr(self, name)
            )
        return made

    def settings(self) -> tuple[str, str, str, str]:
        """Returns the values of the four settings, in the order of the fields, with "" for None."""
        return self.user_id or "", self.user_ip or "", self.user_agent or "", self.request_id or ""

    def __enter__(self) -> AuditContext:
        _scope.set(_Scope(self, around=_scope.get(), block=self))
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        _leave(self)

    def __bool__(self) -> bool:
        return any(self.settings())

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, AuditContext) and self.settings() == other.settings()
        )

    def __hash__(self) -> int:
        return hash(self.settings())

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.__slots__)
        known = (f"{name}={value!r}" for name, value in values if value is not None)
        return f"AuditContext({', '.join(known)})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an AuditContext cannot be changed: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an AuditContext cannot be changed")

    def __reduce__(self) -> tuple[Type[AuditContext], tuple[Optional[str], ...]]:
        return AuditContext, (self.user_id, self.user_ip, self.user_agent, self.request_id)


def _cleaned(
    user_id: object, user_ip: object, user_agent: object, request_id: object
) -> dict[str, Optional[str]]:
    """Returns the given fields with cleaned values."""
    made: dict[str, Optional[str]] = {}
    if user_id is not KEEP:
        made["user_id"] = sanitize.user(user_id)
    if user_ip is not KEEP:
        made["user_ip"] = sanitize.address(user_ip)
    if user_agent is not KEEP:
        made["user_agent"] = sanitize.text(user_agent, sanitize.USER_AGENT_LENGTH)
    if request_id is not KEEP:
        made["request_id"] = sanitize.text(request_id, sanitize.REQUEST_ID_LENGTH)
    return made


EMPTY: Final = AuditContext()
"""The empty context, in which all fields are None."""


# ---- scopes -------------------------------------------------------------------------------------


class Request:
    """One request. A middleware makes a Request, and `identify()` changes its context.

    find_user: a function that finds the user when a statement needs the user. The function returns
    the user's id, None, or KEEP if nothing has changed since its last call. is_authoritative:
    whether the result of find_user overrides `identify()`. By default `identify()` overrides the
    result of find_user.
    """

    __slots__ = ("context", "is_over", "_find_user", "_is_authoritative", "_found", "_identified")

    def __init__(
        self,
        context: AuditContext,
        find_user: Optional[Callable[[], object]] = None,
        is_authoritative: bool = False,
    ) -> None:
        self.context = context
        self.is_over = False
        self._find_user = find_user
        self._is_authoritative = is_authoritative
        self._found: Optional[str] = None
        self._identified: Any = KEEP

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A block that is a part of the request.

        Each piece of a streamed response has its own block.
        """
        block = object()
        _scope.set(_Scope(self.context, around=_scope.get(), block=block, request=self))
        try:
            yield
        finally:
            _leave(block)

    def end(self) -> None:
        """Ends the request.

        A task that outlives the request keeps the context of the request. If the task writes after
        the end of the request, the client logs a message.
        """
        self.is_over = True
        self._find_user = None

    def identify(self, cleaned: Mapping[str, Optional[str]]) -> None:
        """Sets the fields in `cleaned`, whose values fit already, in the request's context."""
        if "user_id" in cleaned:
            self._identified = cleaned["user_id"]
        self.context = self.context._with({**cleaned, "user_id": self._user(self.context.user_id)})

    def find_user(self) -> None:
        """Finds the user of the request. Does nothing if find_user itself causes the call."""
        find_user = self._find_user
        if find_user is None or _is_finding_user.get():
            return
        token = _is_finding_user.set(True)
        try:
            found = find_user()
        finally:
            _is_finding_user.reset(token)
        if found is not KEEP:
            self._found = sanitize.user(found)
            user = self._user(None)
            if user != self.context.user_id:
                self.context = self.context._with({"user_id": user})

    def _user(self, otherwise: Optional[str]) -> Optional[str]:
        first, second = self._identified, self._found
        if self._is_authoritative and second is not None:
            return second
        if first is not KEEP:
            user: Optional[str] = first
            return user
        return otherwise if second is None else second


_is_finding_user: ContextVar[bool] = ContextVar("lead_audit_is_finding_user", default=False)


def is_finding_user() -> bool:
    """Returns whether the caller runs within a search for the user of a request."""
    return _is_finding_user.get()


class _Scope:
    """A block or a request, with a reference to the scope around it."""

    __slots__ = ("context", "overrides", "around", "block", "request", "is_detached", "_base")

    def __init__(
        self,
        context: AuditContext,
        around: Optional[_Scope],
        block: Optional[object] = None,
        request: Optional[Request] = None,
        overrides: Optional[Mapping[str, Optional[str]]] = None,
        is_detached: bool = False,
    ) -> None:
        self.context = context
        self.around = around
        self.block = block  # identifies the scope to remove when the block ends
        self.request = request
        self.overrides = overrides  # the fields that the block sets; None if it sets all fields
        self.is_detached = is_detached  # whether the block belongs to no request
        self._base: Optional[AuditContext] = None  # the outer context from which `context` was made


_NO_SCOPE: Final = _Scope(EMPTY, None)
_scope: ContextVar[_Scope] = ContextVar("lead_audit", default=_NO_SCOPE)


def _context_of(scope: _Scope, finds_user: bool) -> AuditContext:
    if scope.request is not None:
        if finds_user:
            scope.request.find_user()
        return scope.request.context
    if scope.overrides is None or scope.around is None:
        return scope.context
    base = _context_of(scope.around, finds_user and "user_id" not in scope.overrides)
    if base is not scope._base:
        scope.context, scope._base = base._with(scope.overrides), base
    return scope.context


def _in_event_loop() -> bool:
    return asyncio._get_running_loop() is not None


def known() -> AuditContext:
    """Returns the current context without searching for the user."""
    return _context_of(_scope.get(), False)


def current_for_write() -> AuditContext:
    """Returns the current context for a statement. In a request, also finds the user."""
    return _context_of(_scope.get(), True)


def outlived() -> bool:
    """Returns whether the current task has outlived the request from which its user comes."""
    scope: Optional[_Scope] = _scope.get()
    while scope is not None:
        if scope.request is not None:
            return scope.request.is_over
        if scope.overrides is None or "user_id" in scope.overrides:
            return False
        scope = scope.around
    return False


def _leave(block: object) -> None:
    """Makes the scope around the block `block` the current scope again."""
    scope: Optional[_Scope] = _scope.get()
    while scope is not None:
        if scope.block is block and scope.around is not None:
            _scope.set(scope.around)
            return
        scope = scope.around


@contextmanager
def audit_context(
    *,
    user_id: object = KEEP,
    user_ip: object = KEEP,
    user_agent: object = KEEP,
    request_id: object = KEEP,
) -> Iterator[AuditContext]:
    """A block that overrides the given fields and keeps the other fields of the context.

    with audit_context(user_id="nightly-import"):
        ...
    """
    overrides = _cleaned(user_id, user_ip, user_agent, request_id)
    block = object()
    scope = _Scope(EMPTY, around=_scope.get(), block=block, overrides=overrides)
    _scope.set(scope)
    try:
        yield _context_of(scope, not _in_event_loop())
    finally:
        _leave(block)


@contextmanager
def detached() -> Iterator[None]:
    """A block with an empty context that belongs to no request.

    Start workers and schedulers in this block:

        with detached():
            asyncio.create_task(worker())
    """
    block = object()
    _scope.set(_Scope(EMPTY, around=_scope.get(), block=block, is_detached=True))
    try:
        yield
    finally:
        _leave(block)


def identify(
    user_id: object = KEEP,
    *,
    user_ip: object = KEEP,
    user_agent: object = KEEP,
    request_id: object = KEEP,
) -> None:
    """Sets fields of the current request, for all of its tasks and threads.

    Call this function at the place where the application learns the user, for example in a
    dependency or a view. A block within the request keeps the fields that the block overrides.
    Outside of a request, the function changes the context of the current task or thread.
    """
    cleaned = _cleaned(user_id, user_ip, user_agent, request_id)
    scope: Optional[_Scope] = _scope.get()
    while scope is not None and scope.request is None:
        scope = None if scope.is_detached else scope.around
    if scope is not None and scope.request is not None and not scope.request.is_over:
        scope.request.identify(cleaned)
    else:
        AuditContext.set(AuditContext.current()._with(cleaned))


@contextmanager
def request_context(context: AuditContext) -> Iterator[None]:
    """A block that is one request with the context `context`, for a middleware."""
    request = Request(context)
    try:
        with request.entered():
            yield
    finally:
        request.end()
