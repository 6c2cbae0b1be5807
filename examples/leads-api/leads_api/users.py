"""Finds the user of a request.

This is a SUBSTITUTE for a login: a visitor may choose any user, so two browsers can act as two
people. A real application has a real login here. The other modules only need the name of the user
in the session. The session cookie is signed, so a browser cannot change the name."""

from __future__ import annotations

from starlette.requests import HTTPConnection

USERS = {"maria": "Maria Okafor", "tom": "Tom Lindqvist", "aisha": "Aisha Rahman"}


def current_user(connection: HTTPConnection) -> str | None:
    user = connection.session.get("user")
    return user if user in USERS else None
