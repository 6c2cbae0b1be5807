"""The middleware for Starlette and FastAPI, which passes the request to the function `user`.

    app.add_middleware(AuditMiddleware, user=lambda request: request.headers.get("x-user-id"))

Starlette first runs the middleware that was added last. So if `user` needs a middleware for
sessions or authentication, add that middleware after AuditMiddleware.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from . import asgi

__all__ = ["AuditMiddleware"]


class AuditMiddleware(asgi.AuditMiddleware):
    """Does the same as `lead_audit.asgi.AuditMiddleware`, but calls `user` with an HTTPConnection.

    The HTTPConnection is Starlette's object for the request or the websocket.
    """

    def _seen_by_user(self, scope: asgi.Scope) -> Any:
        return HTTPConnection(scope)
