"""Origins of pages (RFC 6454), as the header `Origin` has them: scheme, host, and a port unless it is the default."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def canonical_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, and without the default port of its scheme."""
    origin = origin.lower()
    scheme = origin.partition("://")[0]
    return origin.removesuffix(_DEFAULT_PORTS[scheme]) if scheme in _DEFAULT_PORTS else origin


def is_of_host(origin: str, host: str) -> bool:
    """Whether an origin's page comes from `host`, a header `Host`, in which a default port may stand or not."""
    scheme, separator, _ = origin.partition("://")
    return bool(separator and host) and canonical_origin(f"{scheme}://{host}") == canonical_origin(origin)
