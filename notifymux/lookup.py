"""Name look-ups for an event loop, which a resolver that does not answer can't hold up."""

import socket
from functools import partial

from notifymux.shared_call import shared_call

_TIMEOUT_SECONDS = 2.0


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which to try them; wait at most two seconds.

    Raises:
        OSError: the host can't be looked up, or (TimeoutError) not in time.
        UnicodeError: the name is none.
    """
    try:
        return await shared_call((host, port), partial(_resolve, host, port), _TIMEOUT_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"the name {host} could not be looked up within {_TIMEOUT_SECONDS:g} s") from None


def _resolve(host: str, port: int) -> list[str]:
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
