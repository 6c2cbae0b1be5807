"""The Python client of lead_audit, which tells the database which user writes.

`AuditContext` holds the user of the application. The modules `sqlalchemy` and `django` send the
context to the database. The modules `asgi`, `starlette` and `django` set the context for each
request. `alembic` watches tables, and `trail` reads the audit trail.
"""

from .client_address import TrustedProxies
from .context import AuditContext, audit_context, detached, identify, request_context
from .missing_context import MissingContext

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
