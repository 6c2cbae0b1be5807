"""What differs from one installation to another, from the environment."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`database_url` is for writing leads, `auditor_url` for reading the trail: two roles, so that neither can do the other's work."""

    database_url: str
    auditor_url: str
    secret: str
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            database_url=os.environ["LEADS_DATABASE_URL"],
            auditor_url=os.environ["LEADS_AUDITOR_URL"],
            # Without one, everybody has to log in again after a restart.
            secret=os.environ.get("LEADS_SECRET") or secrets.token_urlsafe(32),
            trusted_proxies=tuple(os.environ.get("LEADS_TRUSTED_PROXIES", "").split()),
        )
