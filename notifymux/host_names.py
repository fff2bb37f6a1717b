"""What a host may be called."""

import ipaddress
import re
from contextlib import suppress

_NAME = re.compile(r"[\w.-]+")


def is_host(text: str) -> bool:
    """Whether a text is a host's name or an IP address (IPv6 without brackets), so that it can be looked up."""
    with suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    try:
        text.encode("idna")  # as Python's look-ups do; a part of the name may be empty or too long
    except UnicodeError:
        return False
    return _NAME.fullmatch(text) is not None
