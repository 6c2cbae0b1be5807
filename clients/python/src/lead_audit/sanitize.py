"""Changes values so that they fit into the fields of the context.

The database refuses a value that does not fit into a setting of the context (SQLSTATE 22023). The
error of the database would make the transaction of the application fail. So the client cleans and
shortens values before it sends them. A hostile HTTP header can change only the field that the
client reads from this header.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Optional

logger = logging.getLogger("lead_audit")

USER_ID_LENGTH = 255
"""The maximum length of user_id in characters. text() cuts off the rest."""
USER_AGENT_LENGTH = 500
"""The maximum length of user_agent in characters. text() cuts off the rest."""
REQUEST_ID_LENGTH = 255
"""The maximum length of request_id in characters. text() cuts off the rest."""

_LONGEST_ADDRESS = 64  # in characters; address() does not parse a longer text
# Matches control characters, characters that change the text direction, line breaks and surrogates.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BYTES_OF_CHARACTER = 4


def text(value: object, length: int) -> Optional[str]:
    """Returns the value as text of at most `length` characters, or None if the text is empty.

    The function decodes bytes as UTF-8. The function replaces control characters, characters that
    change the text direction, line breaks and invalid Unicode by U+FFFD. The function returns None
    for None and for a text of blanks only. If str() of an object fails, the function logs the error
    and returns None.
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
    """Returns the value as a user's id. Returns None for True and False, which are mistakes."""
    return None if isinstance(value, bool) else text(value, USER_ID_LENGTH)


def _text(value: object, length: int) -> Optional[str]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Shortens a long value before it is decoded. A character of UTF-8 has at most four bytes.
        value = (
            bytes(value[: (length + 1) * _BYTES_OF_CHARACTER]).lstrip().decode("utf-8", "replace")
        )
    result = value if isinstance(value, str) else str(value)
    result = result.lstrip()[:length].rstrip()
    return _UNFIT.sub("\ufffd", result) or None


def address(value: object) -> Optional[str]:
    """Returns the value as an IPv4 or IPv6 address in its shortest form, or None for other values.

    A dual-stack socket returns an IPv4 address in the form of IPv6 (::ffff:192.0.2.1). The function
    returns this address in the form of IPv4. The function removes the zone of a link-local address
    (fe80::1%eth0).
    """
    found = parse_address(value)
    return None if found is None else str(found)


def parse_address(value: object) -> Optional[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Parses an IPv4 or IPv6 address as `address()` does.

    Returns None if the value is no address.
    """
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
