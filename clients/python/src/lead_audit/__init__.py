"""The client of lead_audit, the audit trail in PostgreSQL. It tells the database who writes.

`AuditContext` holds the user of the application. Modules for libraries send the context to the
database (`sqlalchemy`, `django`), set it for each request (`asgi`, `starlette`, `django`), watch
tables (`alembic`) and read the trail (`trail`).
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
