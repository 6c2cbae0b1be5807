"""Settings of an installation, from the environment."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`database_url` writes leads, `auditor_url` reads the trail.

    They use two roles with separate rights."""

    database_url: str
    auditor_url: str
    secret: str
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            database_url=os.environ["LEADS_DATABASE_URL"],
            auditor_url=os.environ["LEADS_AUDITOR_URL"],
            # Without LEADS_SECRET, users must log in again after a restart.
            secret=os.environ.get("LEADS_SECRET") or secrets.token_urlsafe(32),
            trusted_proxies=tuple(os.environ.get("LEADS_TRUSTED_PROXIES", "").split()),
        )
