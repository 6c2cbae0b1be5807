"""The ASGI middleware for Starlette and FastAPI, where `user` is called with the request.

    app.add_middleware(AuditMiddleware, user=lambda request: request.headers.get("x-user-id"))

Of middlewares the one that was added last runs first: one that `user` depends on (a session, an authentication) is to be added
after this one.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from . import asgi

__all__ = ["AuditMiddleware"]


class AuditMiddleware(asgi.AuditMiddleware):
    """As `lead_audit.asgi.AuditMiddleware`, but `user` is called with the request (an HTTPConnection: it may be a websocket)."""

    def _seen_by_user(self, scope: asgi.Scope) -> Any:
        return HTTPConnection(scope)
