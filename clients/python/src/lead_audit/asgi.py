"""The middleware for ASGI applications, which sets the context of each request and websocket.

The middleware is plain ASGI and does not use the helper class of a framework. The helper class of a
framework can run the application in a task that the server does not cancel, or can miss the end of
the request. starlette.py contains the middleware for Starlette and FastAPI.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, Awaitable, Callable, Iterable, MutableMapping, Optional, Union

from .client_address import X_FORWARDED_FOR
from .context import request_context
from .request import REQUEST_ID_HEADER, RequestReader

logger = logging.getLogger("lead_audit")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
User = Callable[[Any], Union[object, Awaitable[object]]]


class AuditMiddleware:
    """Sets the context of each request: user, client address, user agent and request id.

    user: a function or coroutine function that returns the user's id or None. The middleware calls
    `user` with the ASGI scope when the request begins. If the application learns the user later,
    the application calls `lead_audit.identify(user_id=…)`. If the function `user` raises an error,
    the middleware logs the error and leaves the user empty, because the middleware never refuses a
    request.

    trusted_proxies, proxy_header: the arguments of `TrustedProxies`. By default no proxy is
    trusted. request_id_header: the argument of `RequestReader`.
    """

    def __init__(
        self,
        app: App,
        user: Optional[User] = None,
        trusted_proxies: Iterable[str] = (),
        proxy_header: str = X_FORWARDED_FOR,
        request_id_header: Optional[str] = REQUEST_ID_HEADER,
    ) -> None:
        self.app = app
        self._user = user
        self._reader = RequestReader(trusted_proxies, proxy_header, request_id_header)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = scope.get("headers") or ()
        client = scope.get("client")
        context = self._reader.read(
            client[0] if client else None,
            lambda name: [value for key, value in headers if key.lower() == name.encode("latin-1")],
        )
        if self._user is not None:
            context = context.replace(user_id=await self._user_of(scope))
        with request_context(context):
            await self.app(scope, receive, send)

    async def _user_of(self, scope: Scope) -> object:
        assert self._user is not None
        try:
            user = self._user(self._seen_by_user(scope))
            return await user if inspect.isawaitable(user) else user
        except Exception:
            logger.exception("lead_audit: the user of a request is not known")
            return None

    def _seen_by_user(self, scope: Scope) -> Any:
        """Returns the argument with which the middleware calls the function `user`."""
        return scope
