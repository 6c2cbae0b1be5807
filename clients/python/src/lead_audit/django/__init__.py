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

    USER                A function or coroutine function, or its dotted path. The function gets the
                        request and returns the user's id or None. The client calls the function
                        when the request writes, and again after an attribute of the request has
                        changed, for example by a login. A result that is not None overrides
                        `identify()`. The default function returns the primary key of request.user
                        if a user is logged in, and does not override `identify()`.
    TRUSTED_PROXIES     The trusted proxies (see `lead_audit.TrustedProxies`). By default, no proxy
                        is trusted.
    PROXY_HEADER        The header with the client's address: "x-forwarded-for" (default),
                        "forwarded", …
    REQUEST_ID_HEADER   The header with the request's id, by default "x-request-id". With None, each
                        request gets a new id.
    ON_MISSING          The reaction to a statement that can write and has no context or no user.
                        "warn" (default) logs the statement once for each place in the code. "raise"
                        raises `lead_audit.MissingContext`. "ignore" does nothing.
"""

from .middleware import AuditMiddleware

__all__ = ["AuditMiddleware"]
