"""The Django application: hooks into every database connection that is made."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.signals import connection_created

from lead_audit.context import identify

from .connection import attach


class LeadAuditConfig(AppConfig):
    name = "lead_audit.django"
    label = "lead_audit"
    verbose_name = "Audit trail"

    def ready(self) -> None:
        connection_created.connect(_connected, dispatch_uid="lead_audit")
        for connection in connections.all(initialized_only=True):
            attach(connection)
        try:
            from django.contrib.auth.signals import user_logged_in
        except ImportError:  # an application without django.contrib.auth
            return
        user_logged_in.connect(_logged_in, dispatch_uid="lead_audit")


def _connected(sender: Any, connection: Any, **_: Any) -> None:
    attach(connection)


def _logged_in(sender: Any, user: Any, **_: Any) -> None:
    identify(user.pk)
