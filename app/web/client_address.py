"""A client's address, as far as what one address may do is bounded."""

from ipaddress import IPv6Address, IPv6Network, ip_address

_HOME_PREFIX_BITS = 64  # of an IPv6 address: who has one has all that begin with these


def client_address(host: str | None) -> str:
    """Return what all clients of one place have in common: an IPv4 address, or the first half of an IPv6 address.

    Anything else, which a proxy or a Unix socket may give, is returned as it is.
    """
    try:
        address = ip_address(host or "")
    except ValueError:
        return host or ""
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:  # of a socket that accepts both
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _HOME_PREFIX_BITS), strict=False))
