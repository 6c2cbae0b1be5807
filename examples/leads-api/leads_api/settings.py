"""Reads the settings of an installation from environment variables."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of an installation.

    With `database_url` the application writes leads, and with `auditor_url` it reads the audit
    trail. The two URLs use two roles with separate rights."""

    database_url: str
    auditor_url: str
    secret: str
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            database_url=os.environ["LEADS_DATABASE_URL"],
            auditor_url=os.environ["LEADS_AUDITOR_URL"],
            # Without LEADS_SECRET, each start makes a new secret, so users must log in again.
            secret=os.environ.get("LEADS_SECRET") or secrets.token_urlsafe(32),
            trusted_proxies=tuple(os.environ.get("LEADS_TRUSTED_PROXIES", "").split()),
        )
