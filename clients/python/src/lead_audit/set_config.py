"""The SQL that sets the context for one transaction.

The settings of the context are local to the transaction (`set_config(…, true)`). The server resets
the settings when the transaction ends, so the next user of a pooled connection does not inherit
them.
"""

from __future__ import annotations

SETTINGS = (
    "lead_audit.user_id",
    "lead_audit.user_ip",
    "lead_audit.user_agent",
    "lead_audit.request_id",
)


def set_config(placeholders: tuple[str, str, str, str]) -> str:
    """Returns the statement that sets the whole context, with the given parameter placeholders."""
    calls = (
        f"set_config('{name}', {placeholder}, true)"
        for name, placeholder in zip(SETTINGS, placeholders)
    )
    return f"SELECT {', '.join(calls)}"


def set_config_text(values: tuple[str, ...]) -> str:
    """Returns the statement that sets the context to `values`, written as hexadecimal digits."""
    a, b, c, d = (
        f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')" if value else "''"
        for value in values
    )
    return set_config((a, b, c, d))


def ascii_only(values: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the values in ASCII, with "?" in the place of each other character."""
    return tuple(value.encode("ascii", "replace").decode("ascii") for value in values)
