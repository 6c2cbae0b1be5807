"""Finds the address of the web client behind proxies.

A proxy that gets a request appends the sender's address to a header. The earlier part of the header
comes from the sender, who can write anything into it. So this module reads the addresses in the
header from the last to the first. The first address that is not the address of a trusted proxy is
the address of the web client.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Iterable, Iterator, Optional, Union

from . import sanitize

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

UNIX: Final = "unix"
"""The name of a trusted proxy that connects through a Unix socket and so has no address."""
TEST_CLIENT: Final = "testclient"
"""The name that Starlette's TestClient passes in place of an address."""
X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"

_LONGEST_HEADER = 8192  # in bytes; the module reads only the end of a longer header
_BLANKS: Final = " \t"
_PORT: Final = re.compile(r"[A-Za-z0-9._-]+")  # a port number, or a name for a port (RFC 7239)


class TrustedProxies:
    """The trusted proxies, and the header into which they write the address of the web client.

    addresses: the addresses or networks ("10.0.0.0/8") of the proxies, or the names UNIX or
    TEST_CLIENT. If the list is empty, no proxy is trusted. header: "x-forwarded-for", "forwarded"
    (RFC 7239), or a header with a single address, such as "x-real-ip". Each trusted proxy must
    write this header itself. If a proxy only passes the header on, the web client can forge the
    address in the header.
    """

    def __init__(self, addresses: Iterable[str] = (), header: str = X_FORWARDED_FOR) -> None:
        if isinstance(addresses, str):
            addresses = [part.strip() for part in addresses.split(",") if part.strip()]
        self._networks: list[Union[ipaddress.IPv4Network, ipaddress.IPv6Network]] = []
        self._names: set[str] = set()
        for address in addresses:
            if address in (UNIX, TEST_CLIENT):
                self._names.add(address)
            else:
                self._networks.append(ipaddress.ip_network(address))
        self.header = header.lower()

    def trusts(self, address: Address) -> bool:
        """Returns whether `address` is the address of a trusted proxy."""
        return any(
            address.version == network.version and address in network for network in self._networks
        )

    def client_address(self, peer: Optional[str], header: Iterable[bytes]) -> Optional[str]:
        """Returns the address of the web client, or None if the address is not known.

        peer: the address from which the connection comes, or None or "" for a Unix socket. header:
        the values of the header, in the order of the request.
        """
        found = sanitize.parse_address(peer)
        if (peer or UNIX) in self._names if found is None else self.trusts(found):
            for hop in _hops_from_the_right(self.header, header):
                if hop is None:
                    break  # not an address, so the earlier addresses cannot be trusted
                found = hop
                if not self.trusts(found):
                    break
        return None if found is None else str(found)


def _hops_from_the_right(name: str, header: Iterable[bytes]) -> Iterator[Optional[Address]]:
    """Yields the addresses in the header, last to first, and None for other content."""
    for value in reversed(list(header)):
        shortened = len(value) > _LONGEST_HEADER
        text = value[-_LONGEST_HEADER:].decode("latin-1")
        if name == FORWARDED:
            yield from _forwarded_from_the_right(text, shortened)
            continue
        hops = text.split(",")
        if shortened:
            hops[0] = ""  # the header was shortened, so the first part may be incomplete
        for hop in reversed(hops):
            yield _address_of_hop(hop)


def _forwarded_from_the_right(text: str, shortened: bool) -> Iterator[Optional[Address]]:
    """Yields the addresses in a Forwarded header, last to first, and None for bad syntax.

    A trusted proxy has written the end of the header. So the function reads the header from its
    end, including quoted strings. If the function read from the beginning, a quote that the web
    client opens could hide the proxy's part.
    """
    position = len(text)
    pairs: dict[str, str] = {}
    while True:
        pair = _pair_before(text, position)
        if pair is None or pair[0] in pairs:
            yield None
            return
        name, value, position = pair
        pairs[name] = value
        if shortened if position == 0 else text[position - 1] not in ";,":
            yield None  # the header can be cut off at this position, or its syntax is bad
            return
        if position == 0 or text[position - 1] == ",":
            yield _address_of_hop(pairs["for"]) if "for" in pairs else None
            pairs = {}
        if position == 0:
            return
        position -= 1


def _pair_before(text: str, end: int) -> Optional[tuple[str, str, int]]:
    """Returns name, value and position of the pair that ends at `end`, or None.

    A pair has the form name=value, and the returned name is in lower case. The result is None if no
    pair ends at `end`.
    """
    end = _without_blanks_before(text, end)
    if end > 0 and text[end - 1] == '"':
        if _is_escaped(text, end - 1):
            return None
        start = text.rfind('"', 0, end - 1)
        while start >= 0 and _is_escaped(text, start):
            start = text.rfind('"', 0, start)
        if start < 0:
            return None
        value = _unescaped(text[start + 1 : end - 1])
    else:
        start = end
        while start > 0 and text[start - 1] not in '=;,"':
            start -= 1
        value = text[start:end]
    if start == 0 or text[start - 1] != "=":
        return None
    name_end = name_start = start - 1
    while name_start > 0 and text[name_start - 1] not in '=;,"':
        name_start -= 1
    return text[name_start:name_end].strip(_BLANKS).lower(), value, name_start


def _without_blanks_before(text: str, end: int) -> int:
    while end > 0 and text[end - 1] in _BLANKS:
        end -= 1
    return end


def _is_escaped(text: str, place: int) -> bool:
    start = place
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return (place - start) % 2 == 1


def _unescaped(text: str) -> str:
    """Returns the content of a quoted string. A backslash makes the next character literal."""
    made: list[str] = []
    characters = iter(text)
    for character in characters:
        made.append(next(characters, "") if character == "\\" else character)
    return "".join(made)


def _address_of_hop(hop: str) -> Optional[Address]:
    hop = hop.strip()
    port = ""
    if hop.startswith("["):  # for example [2001:db8::1]:4711
        hop, closed, port = hop[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return None
        port = port[1:] if len(port) > 1 else port
    elif hop.count(":") == 1:  # for example 192.0.2.1:4711
        hop, _, port = hop.partition(":")
        if not port:
            return None
    if port and not _PORT.fullmatch(port):
        return None
    return sanitize.parse_address(hop)
