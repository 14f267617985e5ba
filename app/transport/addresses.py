"""Which addresses a call from the control side may connect to: decided by the address itself, never by a name.

Loopback, link-local (there cloud machines keep their credentials), multicast and unspecified addresses are refused
unless they are named one by one; private ones unless private ones are allowed. Addresses that carry an IPv4 address
inside (mapped, 6to4, Teredo, NAT64) are held to that one as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PRIVATE: Sequence[Network] = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_CREDENTIALS = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "169.254.169.254")))
"""Where clouds hand out a machine's credentials: two of them lie in private ranges."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`private`: private ranges are allowed. `also`: networks that are allowed whatever they are."""

    private: bool = False
    also: tuple[Network, ...] = ()

    @classmethod
    def read(cls, private: bool, also: str) -> Policy:
        """From settings: `also` is a list of networks such as `127.0.0.1/32, fd00::/8`. Raises InvalidInput."""
        try:
            networks = tuple(ipaddress.ip_network(text.strip()) for text in also.split(",") if text.strip())
        except ValueError as error:
            raise InvalidInput(
                f"MUSTER_HTTP_ALLOW: {error}", hint="for example 127.0.0.1/32,10.1.0.0/16", code="bad-setting"
            ) from None
        return cls(private, networks)

    def allows(self, address: str) -> bool:
        """Whether a connection to this address, as `getaddrinfo` gives it, may be made."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return all(self._allows(one) for one in _carried(found))

    def _allows(self, address: Address) -> bool:
        if any(address in network for network in self.also):
            return True
        if address in _CREDENTIALS or address.is_multicast:
            return False
        if any(address in network for network in _PRIVATE):
            return self.private
        site = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        return address.is_global and not (address.is_reserved or site)


def _carried(address: Address) -> Iterator[Address]:
    """The address, and those that it carries inside; a mapped one is nothing but the IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _NAT64:
        yield ipaddress.IPv4Address(address.packed[-4:])
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    yield from address.teredo or ()
