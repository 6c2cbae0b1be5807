"""The setting LEAD_AUDIT. The package `lead_audit.django` describes its keys."""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple, Optional

from django.conf import settings
from django.utils.module_loading import import_string

from lead_audit.client_address import X_FORWARDED_FOR
from lead_audit.missing_context import OnMissing
from lead_audit.request import REQUEST_ID_HEADER


class Options(NamedTuple):
    """The values of the setting, with defaults for missing keys."""

    user: Optional[Callable[[Any], Any]]
    trusted_proxies: Iterable[str]
    proxy_header: str
    request_id_header: Optional[str]
    on_missing: OnMissing


def options() -> Options:
    """Returns the current values of the setting."""
    given: dict[str, Any] = dict(getattr(settings, "LEAD_AUDIT", {}))
    user = given.pop("USER", None)
    made = Options(
        import_string(user) if isinstance(user, str) else user,
        given.pop("TRUSTED_PROXIES", ()),
        given.pop("PROXY_HEADER", X_FORWARDED_FOR),
        given.pop("REQUEST_ID_HEADER", REQUEST_ID_HEADER),
        given.pop("ON_MISSING", "warn"),
    )
    if given:
        raise TypeError(f"unknown keys in the setting LEAD_AUDIT: {', '.join(sorted(given))}")
    return made
