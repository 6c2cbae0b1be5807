"""The client's address when there are proxies in front of the application.

A proxy appends, to a header, the address from which it got the request. Whatever stood there before came from further out, and who is
outside can write what he likes. So only what a trusted proxy has appended is believed: the header is read from its end, as long
as the address found so far is that of a trusted proxy. The first that is not is the client.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Iterable, Iterator, Optional, Union

from . import fields

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

UNIX: Final = "unix"
"""Among the trusted proxies: whoever connects through a Unix socket, which has no address."""
TEST_CLIENT: Final = "testclient"
"""Among the trusted proxies: Starlette's TestClient, which gives this in place of an address."""
X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"

_LONGEST_HEADER = 8192  # of it the end is read: more hops than fit there has nobody
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;\s]*))', re.IGNORECASE)


class TrustedProxies:
    """Which proxies are believed, and by which header they tell the client's address.

    addresses: of the proxies, as single addresses or networks ("10.0.0.0/8"), or "unix" or "testclient" (above). None: none is believed.
    header: "x-forwarded-for", "forwarded" (RFC 7239), or another that has one address, such as "x-real-ip". It has to be the one
    that the proxies write: one that they merely pass on is the client's own.
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
        """Whether this is a trusted proxy."""
        return any(address.version == network.version and address in network for network in self._networks)

    def client_address(self, peer: Optional[str], header: Iterable[bytes]) -> Optional[str]:
        """The client's address, None if it is not known.

        peer: the address that the connection comes from; None or "" for a Unix socket. header: the values of the header, in order.
        """
        found = fields.parse_address(peer)
        if (peer or UNIX) in self._names if found is None else self.trusts(found):
            for hop in _hops_from_the_right(self.header, header):
                if hop is None:
                    break  # not an address: what lies beyond it nobody vouches for
                found = hop
                if not self.trusts(found):
                    break
        return None if found is None else str(found)


def _hops_from_the_right(name: str, header: Iterable[bytes]) -> Iterator[Optional[Address]]:
    """The addresses in the header, the last first; None for what is no address."""
    for value in reversed(list(header)):
        shortened = len(value) > _LONGEST_HEADER
        hops = value[-_LONGEST_HEADER:].decode("latin-1").split(",")
        if shortened:
            hops[0] = ""  # may have lost its beginning
        for hop in reversed(hops):
            yield _address_of_hop(name, hop)


def _address_of_hop(name: str, hop: str) -> Optional[Address]:
    if name == FORWARDED:
        match = _FORWARDED_FOR.search(hop)
        if match is None:
            return None
        hop = match[1] if match[1] is not None else match[2]
    hop = hop.strip()
    if hop.startswith("["):  # [2001:db8::1]:4711
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:  # 192.0.2.1:4711
        hop = hop.partition(":")[0]
    return fields.parse_address(hop)
