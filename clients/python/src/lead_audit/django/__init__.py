"""Django 4.2 and later: a middleware that finds the context of each request, and a hook that takes it to the database.

    INSTALLED_APPS = [..., "lead_audit.django"]
    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware", ..., "lead_audit.django.AuditMiddleware"]
    LEAD_AUDIT = {"TRUSTED_PROXIES": ["10.0.0.0/8"]}

Keys of the setting LEAD_AUDIT, all of them optional:

    USER                a callable, or its dotted path: given the request, returns the user's id or None (or a coroutine function).
                        By default the primary key of request.user, where somebody is logged in. It is called when the request writes, and
                        again when an attribute of the request has changed since, by a login for example. What it returns counts more than
                        what `identify()` says, unless it is None; the default counts less.
    TRUSTED_PROXIES     see `lead_audit.TrustedProxies`; by default no proxy is believed
    PROXY_HEADER        "x-forwarded-for" (default), "forwarded", …
    REQUEST_ID_HEADER   "x-request-id" (default); None: an id is always made
    ON_MISSING          what is done about a statement that can write and has no context, or no user: "warn" (default: in the log, once for
                        each place in the code), "raise" (`lead_audit.MissingContext`) or "ignore"
"""

from .middleware import AuditMiddleware

__all__ = ["AuditMiddleware"]
