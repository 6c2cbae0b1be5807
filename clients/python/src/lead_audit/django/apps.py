"""The Django application, which attaches the client to each new database connection."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.signals import connection_created

from .connection import attach, reporter


class LeadAuditConfig(AppConfig):
    name = "lead_audit.django"
    label = "lead_audit"
    verbose_name = "Audit trail"

    def ready(self) -> None:
        connection_created.connect(_connected, dispatch_uid="lead_audit")
        setting_changed.connect(_setting_changed, dispatch_uid="lead_audit")
        for connection in connections.all(initialized_only=True):
            attach(connection)


def _connected(sender: Any, connection: Any, **_: Any) -> None:
    attach(connection)


def _setting_changed(sender: Any, setting: str, **_: Any) -> None:
    """Forgets the cached setting LEAD_AUDIT, because tests change settings."""
    if setting == "LEAD_AUDIT":
        reporter.cache_clear()
