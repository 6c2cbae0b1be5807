"""The middleware: each request has its context, in sync and async views, and while a streaming response is sent."""

from __future__ import annotations

import logging
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from lead_audit.client_address import X_FORWARDED_FOR
from lead_audit.context import AuditContext, identify, request_context
from lead_audit.request import REQUEST_ID_HEADER, RequestReader

logger = logging.getLogger("lead_audit")


class AuditMiddleware:
    """Sets the context of each request from the setting LEAD_AUDIT: see the package's documentation."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        options = dict(getattr(settings, "LEAD_AUDIT", {}))
        user = options.pop("USER", logged_in_user)
        self._user: Callable[[HttpRequest], Any] = import_string(user) if isinstance(user, str) else user
        self._reader = RequestReader(
            options.pop("TRUSTED_PROXIES", ()),
            options.pop("PROXY_HEADER", X_FORWARDED_FOR),
            options.pop("REQUEST_ID_HEADER", REQUEST_ID_HEADER),
        )
        if options:
            raise TypeError(f"unknown keys in the setting LEAD_AUDIT: {', '.join(sorted(options))}")
        self._get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._async:
            return self._respond_async(request)
        with request_context(self._context(request)):
            _identify(self._user, request)
            return _streamed(self._get_response(request))

    async def _respond_async(self, request: HttpRequest) -> Any:
        with request_context(self._context(request)):
            await _identify_async(self._user, request)
            response: Awaitable[HttpResponseBase] = self._get_response(request)
            return _streamed(await response)

    def _context(self, request: HttpRequest) -> AuditContext:
        return self._reader.read(request.META.get("REMOTE_ADDR") or None, lambda name: _header(request, name))


def logged_in_user(request: HttpRequest) -> Any:
    """The primary key of the user who is logged in; None for others.

    A request without a session's cookie does not get its session looked at, which would make its response depend on it.
    """
    user = getattr(request, "user", None)
    if user is None:
        return None
    has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
    if not has_session and hasattr(request, "session") and not hasattr(request, "_cached_user"):
        return None
    return user.pk if user.is_authenticated else None


def _identify(user: Callable[[HttpRequest], Any], request: HttpRequest) -> None:
    try:
        identify(user(request))
    except Exception:
        logger.exception("lead_audit: the user of a request is not known")


async def _identify_async(user: Callable[[HttpRequest], Any], request: HttpRequest) -> None:
    try:
        identify(await user(request) if iscoroutinefunction(user) else await sync_to_async(user)(request))
    except Exception:
        logger.exception("lead_audit: the user of a request is not known")


def _header(request: HttpRequest, name: str) -> list[bytes]:
    """A header's values. WSGI has its bytes as Latin-1, and joins repeated ones by commas."""
    value = request.META.get("HTTP_" + name.upper().replace("-", "_"))
    return [] if value is None else [str(value).encode("latin-1", "replace")]


def _streamed(response: Any) -> Any:
    """A response that is made while it is sent: its pieces are made in the request's context, too."""
    if isinstance(response, StreamingHttpResponse):
        context = AuditContext.current()
        content: Any = response.streaming_content
        response.streaming_content = (
            _pieces_async(context, content.__aiter__()) if response.is_async else _pieces(context, iter(content))
        )
    return response


def _pieces(context: AuditContext, content: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        with context:
            try:
                piece = next(content)
            except StopIteration:
                return
        yield piece


async def _pieces_async(context: AuditContext, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        with context:
            try:
                piece = await content.__anext__()
            except StopAsyncIteration:
                return
        yield piece
