"""What a field of the context may hold, and how anything else is made to fit.

The database refuses what does not fit (SQLSTATE 22023), and a refusal would fail the application's transaction. So values are cleaned
and shortened here, before they get there: a hostile header changes its own field and nothing else.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Optional

logger = logging.getLogger("lead_audit")

USER_ID_LENGTH = 255
"""Longest user_id, in characters; what is longer is cut off."""
USER_AGENT_LENGTH = 500
"""Longest user_agent, in characters; what is longer is cut off."""
REQUEST_ID_LENGTH = 255
"""Longest request_id, in characters; what is longer is cut off."""

_LONGEST_ADDRESS = 64  # of its text: more is no address, and is not looked at
# Control characters, surrogates, line breaks, and what changes the direction of the text that follows it.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BYTES_OF_CHARACTER = 4


def text(value: object, length: int) -> Optional[str]:
    """The value as text of at most that many characters; None for None and for nothing but blanks.

    Bytes are read as UTF-8. Control characters, also those for the direction of text, line breaks and what is not valid Unicode become
    U+FFFD. None as well, with an error in the log, for an object that cannot be made a text.
    """
    if value is None:
        return None
    try:
        return _text(value, length)
    except Exception:
        logger.exception(
            "lead_audit: a value of type %s cannot be made a text", type(value).__name__
        )
        return None


def user(value: object) -> Optional[str]:
    """The value as a user's id. True and False are nobody's: they come from a condition that was meant to give an id."""
    return None if isinstance(value, bool) else text(value, USER_ID_LENGTH)


def _text(value: object, length: int) -> Optional[str]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Longer values are cut before they are decoded: each character has four bytes at most.
        value = (
            bytes(value[: (length + 1) * _BYTES_OF_CHARACTER]).lstrip().decode("utf-8", "replace")
        )
    result = value if isinstance(value, str) else str(value)
    result = result.lstrip()[:length].rstrip()
    return _UNFIT.sub("\ufffd", result) or None


def address(value: object) -> Optional[str]:
    """The value as an IPv4 or IPv6 address in its shortest form; None if it is none.

    An IPv4 address in IPv6 form (::ffff:192.0.2.1), as a socket for both gives it, becomes the IPv4 address; the zone of a
    link-local address (fe80::1%eth0) is left out.
    """
    found = parse_address(value)
    return None if found is None else str(found)


def parse_address(value: object) -> Optional[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """As address(), for computing with it."""
    if isinstance(value, bytes):
        value = value[: _LONGEST_ADDRESS + 1].decode("latin-1")
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        value = str(value)
    if not isinstance(value, str) or len(value) > _LONGEST_ADDRESS:
        return None
    try:
        found = ipaddress.ip_address(value.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
