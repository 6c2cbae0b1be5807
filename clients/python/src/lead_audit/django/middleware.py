"""The middleware for Django.

The middleware sets the context of each request, for sync and async views and for streaming
responses.
"""

from __future__ import annotations

from typing import Any, AsyncIterator, Awaitable, Callable, Iterator

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from lead_audit.context import Request
from lead_audit.request import RequestReader

from .options import options
from .user import UserOfRequest, logged_in_user


class AuditMiddleware:
    """Sets the context of each request. `lead_audit.django` describes the setting LEAD_AUDIT."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        given = options()
        self._user = given.user or logged_in_user
        self._is_authoritative = given.user is not None
        self._reader = RequestReader(
            given.trusted_proxies, given.proxy_header, given.request_id_header
        )
        self._get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._async:
            return self._respond_async(request)
        scope = self._scope(request)
        try:
            with scope.entered():
                response = self._get_response(request)
        except BaseException:
            scope.end()
            raise
        return _sent(response, scope)

    async def _respond_async(self, request: HttpRequest) -> Any:
        scope = self._scope(request)
        try:
            with scope.entered():
                responding: Awaitable[HttpResponseBase] = self._get_response(request)
                response = await responding
        except BaseException:
            scope.end()
            raise
        return _sent(response, scope)

    def _scope(self, request: HttpRequest) -> Request:
        context = self._reader.read(
            request.META.get("REMOTE_ADDR") or None, lambda name: _header(request, name)
        )
        return Request(context, UserOfRequest(self._user, request), self._is_authoritative)


def _header(request: HttpRequest, name: str) -> list[bytes]:
    """Returns the values of the header `name`.

    WSGI has decoded the values as Latin-1, and has joined the values of a repeated header with
    commas.
    """
    value = request.META.get("HTTP_" + name.upper().replace("-", "_"))
    return [] if value is None else [str(value).encode("latin-1", "replace")]


def _sent(response: Any, scope: Request) -> Any:
    """Returns the response.

    If the response streams, its pieces are made in the request's context.
    """
    if (
        not isinstance(response, StreamingHttpResponse)
        or getattr(response, "file_to_stream", None) is not None
    ):
        scope.end()  # no piece follows, or the server sends the file itself (wsgi.file_wrapper)
        return response
    content: Any = response.streaming_content
    response.streaming_content = (
        _pieces_async(scope, content.__aiter__())
        if response.is_async
        else _pieces(scope, iter(content))
    )
    return response


def _pieces(scope: Request, content: Iterator[bytes]) -> Iterator[bytes]:
    try:
        while True:
            with scope.entered():
                try:
                    piece = next(content)
                except StopIteration:
                    return
            yield piece
    finally:
        scope.end()


async def _pieces_async(scope: Request, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while True:
            with scope.entered():
                try:
                    piece = await content.__anext__()
                except StopAsyncIteration:
                    return
            yield piece
    finally:
        scope.end()
