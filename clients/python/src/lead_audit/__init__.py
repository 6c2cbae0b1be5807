"""The client of lead_audit, the audit trail inside PostgreSQL: it tells the database who writes.

`AuditContext` holds the user of the application. The module for a library of the application takes
it to the database, or reads the trail: `sqlalchemy`, `asgi`, `starlette`, `django`, `alembic`,
`trail`.
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
