"""The middleware for Starlette and FastAPI. The function `user` gets the request.

    app.add_middleware(AuditMiddleware, user=lambda request: request.headers.get("x-user-id"))

The middleware that is added last runs first. If `user` depends on another middleware (for sessions,
for authentication), add the other middleware after this one.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from . import asgi

__all__ = ["AuditMiddleware"]


class AuditMiddleware(asgi.AuditMiddleware):
    """Does the same as `lead_audit.asgi.AuditMiddleware`, but calls `user` with an HTTPConnection.

    The HTTPConnection is the request or the websocket.
    """

    def _seen_by_user(self, scope: asgi.Scope) -> Any:
        return HTTPConnection(scope)
