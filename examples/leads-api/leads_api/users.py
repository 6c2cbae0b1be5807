"""Finds the user of a request.

This module is a SUBSTITUTE for a login: a visitor can choose any user, so two browsers can act as
two people. A real application needs a real login in place of this module. The other modules only
need the name of the user in the session. The session cookie is signed, so a browser cannot change
the name."""

from __future__ import annotations

from starlette.requests import HTTPConnection

USERS = {"maria": "Maria Okafor", "tom": "Tom Lindqvist", "aisha": "Aisha Rahman"}


def current_user(connection: HTTPConnection) -> str | None:
    user = connection.session.get("user")
    return user if user in USERS else None
