"""Who the user of a request is, as the setting LEAD_AUDIT["USER"] has it, at any time of the request.

A request may get its user late: when a view of Django REST framework authenticates, or when somebody logs in. So it is asked for when the
request writes, and asked again when an attribute of the request has changed since: `request.user` is one.
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
    """Called for the user's id: KEEP if nothing has changed since the last time."""

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
        """What the request consists of now, by identity: asking for the user may be a question to the database, this is none."""
        attributes = self._request.__dict__
        session = attributes.get("session")
        return [
            *map(id, attributes.values()),
            session is not None and getattr(session, "modified", False),
        ]


def logged_in_user(request: HttpRequest) -> Any:
    """The primary key of the user who is logged in; None for others.

    A request without a session's cookie does not get its session looked at, which would make its response depend on it.
    """
    user = getattr(request, "user", None)
    if user is None:
        return None
    has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
    is_lazy = (
        not has_session and hasattr(request, "session") and not hasattr(request, "_cached_user")
    )
    if is_lazy and "_wrapped" in getattr(
        user, "__dict__", {}
    ):  # Django's own stand-in for a user, which looks at the session
        return None
    return user.pk if user.is_authenticated else None
