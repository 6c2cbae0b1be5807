"""Finds the user of a request with the function in the setting LEAD_AUDIT["USER"].

The user of a request can become known late, for example when a view of Django REST framework
authenticates or when a user logs in. So the client finds the user when the request writes. If an
attribute of the request, such as `request.user`, changes later, the client finds the user again.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Optional

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest

from lead_audit.context import KEEP

logger = logging.getLogger("lead_audit")


class UserOfRequest:
    """A callable that returns the user's id, or KEEP if nothing has changed since the last call."""

    __slots__ = ("_user", "_request", "_seen")

    def __init__(self, user: Callable[[HttpRequest], Any], request: HttpRequest) -> None:
        self._user = async_to_sync(user) if iscoroutinefunction(user) else user
        self._request = request
        self._seen: Optional[list[Any]] = None

    def __call__(self) -> object:
        if self._seen is not None and self._seen == self._attributes():
            return KEEP
        try:
            return self._user(self._request)
        except Exception:
            logger.exception("lead_audit: the user of a request is not known")
            return KEEP
        finally:
            self._seen = self._attributes()

    def _attributes(self) -> list[Any]:
        """Returns the values of id() of the request's attributes.

        A search for the user can execute a query. A comparison of these ids shows, without a query,
        whether a new search is necessary.
        """
        attributes = self._request.__dict__
        session = attributes.get("session")
        return [
            *map(id, attributes.values()),
            session is not None and getattr(session, "modified", False),
        ]


def logged_in_user(request: HttpRequest) -> Any:
    """Returns the primary key of the logged-in user, or None for an anonymous request.

    If the request has no session cookie, the function does not read the session, because a response
    whose view reads the session gets the header `Vary: Cookie`.
    """
    user = getattr(request, "user", None)
    if user is None:
        return None
    has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
    is_lazy = (
        not has_session and hasattr(request, "session") and not hasattr(request, "_cached_user")
    )
    if is_lazy and "_wrapped" in getattr(user, "__dict__", {}):
        return None  # Django's lazy user would read the session
    return user.pk if user.is_authenticated else None
