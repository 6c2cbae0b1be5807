"""The application's side of lead_audit, the audit trail inside PostgreSQL: who is it that writes?

`AuditContext` says on whose behalf the application works. What takes it to the database, and reads the trail, is in the modules
for what the application uses: `sqlalchemy`, `asgi`, `starlette`, `django`, `alembic`, `trail`.
"""

from .client_address import TrustedProxies
from .context import AuditContext, audit_context, detached, identify, request_context
from .missing import MissingContext

__all__ = [
    "AuditContext",
    "MissingContext",
    "TrustedProxies",
    "audit_context",
    "detached",
    "identify",
    "request_context",
]
__version__ = "1.1.0"
