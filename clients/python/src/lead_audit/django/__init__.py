"""The client for Django 4.2 and later: a middleware for requests, and a hook for statements.

    INSTALLED_APPS = [..., "lead_audit.django"]
    MIDDLEWARE = [
        ...,
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        ...,
        "lead_audit.django.AuditMiddleware",
    ]
    LEAD_AUDIT = {"TRUSTED_PROXIES": ["10.0.0.0/8"]}

Keys of the setting LEAD_AUDIT, all of them optional:

    USER                A function or coroutine function, or its dotted path. It gets the request
                        and returns the user's id or None. The client calls it when the request
                        writes, and again if an attribute of the request has changed since, for
                        example by a login. Its result overrides `identify()`, unless the result is
                        None. The default returns the primary key of request.user if a user is
                        logged in. The default does not override `identify()`.
    TRUSTED_PROXIES     see `lead_audit.TrustedProxies`; by default no proxy is trusted
    PROXY_HEADER        "x-forwarded-for" (default), "forwarded", …
    REQUEST_ID_HEADER   "x-request-id" (default); None: each request gets a new id
    ON_MISSING          what happens if a statement that can write has no context or no user:
                        "warn" (default) logs it once for each place in the code, "raise" raises
                        `lead_audit.MissingContext`, and "ignore" does nothing
"""

from .middleware import AuditMiddleware

__all__ = ["AuditMiddleware"]
