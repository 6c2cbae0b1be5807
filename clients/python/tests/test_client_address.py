"""Tests of client_address.py: the address of the web client, with and without proxies."""

from __future__ import annotations

from typing import Optional

import pytest

from lead_audit import TrustedProxies

PROXIES = ["10.0.0.0/8", "2001:db8:1::/48"]


@pytest.mark.parametrize(
    ("peer", "header", "found"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # the client has forged the header
        ("203.0.113.7", ["10.0.0.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),  # 192.0.2.66 is forged
        ("10.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),  # the header occurs twice
        ("10.0.0.1", ["198.51.100.1, 10.0.0.3 , 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "10.0.0.3", "10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.4, 10.0.0.3"], "10.0.0.4"),  # all addresses are proxies
        (
            "10.0.0.1",
            ["198.51.100.1, nonsense, 10.0.0.2"],
            "10.0.0.2",
        ),  # the addresses before an invalid address do not count
        ("10.0.0.1", ["198.51.100.1,"], "10.0.0.1"),
        ("10.0.0.1", ["'; DROP TABLE leads; --"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:1::1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:2::1", ["198.51.100.1"], "2001:db8:2::1"),
        ("10.0.0.1", ["1.1.1.1," * 10**6 + "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.9," * 10**6], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.9" + ",10.0.0.9" * 10**6], "10.0.0.9"),
        ("testclient", ["198.51.100.1"], None),
        (None, ["198.51.100.1"], None),
    ],
)
def test_x_forwarded_for(peer: Optional[str], header: list[str], found: Optional[str]) -> None:
    assert (
        TrustedProxies(PROXIES).client_address(peer, [value.encode() for value in header]) == found
    )


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ('For="[2001:db8::7]:4711";proto=https', "2001:db8::7"),
        ("for=192.0.2.66, proto=http;for=198.51.100.1:4711;by=10.0.0.1", "198.51.100.1"),
        ("for=198.51.100.1, for=unknown", "10.0.0.1"),
        ("for=198.51.100.1, for=_hidden", "10.0.0.1"),
        ("198.51.100.1", "10.0.0.1"),
        ("xfor=198.51.100.1", "10.0.0.1"),
        # The web client sent a Host that looks like a further pair, and the proxy copied the Host.
        ('for=198.51.100.1;host="x,for=6.6.6.6;y"', "198.51.100.1"),
        ('for=198.51.100.1;host="x\\",for=6.6.6.6;y=\\""', "198.51.100.1"),
        ('host="x;for=6.6.6.6;y";for=198.51.100.1', "198.51.100.1"),
        ('host="x\\\\";for=198.51.100.1', "198.51.100.1"),
        ('host="x,for=6.6.6.6"', "10.0.0.1"),
        # A quote that the web client opens must not extend into the proxy's part of the header.
        ('for=6.6.6.6;host="unclosed, for=198.51.100.1', "198.51.100.1"),
        ('for=192.0.2.66, for="198.51.100.1:4711"', "198.51.100.1"),
        ('for="198.51.100.1" ; proto=http , for="10.0.0.3"', "198.51.100.1"),
        # These headers have bad syntax.
        ("for=198.51.100.1;for=6.6.6.6", "10.0.0.1"),
        ('for="[2001:db8::7]x"', "10.0.0.1"),
        ('for="198.51.100.1:"', "10.0.0.1"),
        ('for=198.51.100.1;host="x\\"', "10.0.0.1"),
        ('for=198.51.100.1;x"y=1', "10.0.0.1"),
        ("for=198.51.100.1,", "10.0.0.1"),
        ('"' * 8000, "10.0.0.1"),
        ('x="' + '\\"' * 4000 + '"', "10.0.0.1"),
        ("for=6.6.6.6" + ";x=1" * 2100, "10.0.0.1"),
    ],
)
def test_forwarded(header: str, found: str) -> None:
    proxies = TrustedProxies(PROXIES, header="Forwarded")
    assert proxies.header == "forwarded"
    assert proxies.client_address("10.0.0.1", [header.encode()]) == found
    assert proxies.client_address("203.0.113.7", [header.encode()]) == "203.0.113.7"


def test_settings() -> None:
    assert (
        TrustedProxies("10.0.0.1, 10.0.0.2").client_address("10.0.0.2", [b"198.51.100.1"])
        == "198.51.100.1"
    )
    assert TrustedProxies(["unix"]).client_address(None, [b"198.51.100.1"]) == "198.51.100.1"
    assert TrustedProxies(["unix"]).client_address("10.0.0.1", [b"198.51.100.1"]) == "10.0.0.1"
    assert TrustedProxies(["unix"]).client_address("testclient", [b"198.51.100.1"]) is None
    assert (
        TrustedProxies(["testclient"]).client_address("testclient", [b"198.51.100.1"])
        == "198.51.100.1"
    )
    assert TrustedProxies(["testclient"]).client_address("testclient", []) is None
    with pytest.raises(ValueError):
        TrustedProxies(["everybody"])
