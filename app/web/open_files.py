"""How many files a worker may open, and how many clients fit into that."""

import logging
import resource

RESERVED_FILES = 90  # of a worker, for its servers, its own files and for probes: never for clients
SPARE_FILES = 500  # what it asks for besides its clients' sockets
MIN_OTHERS, MAX_OTHERS = 40, 1000  # connections that serve no client; the least of them are among the reserved files

logger = logging.getLogger(__name__)


def allow_open_files(max_clients: int) -> None:
    """Raise this process's limit for so many clients, or as far as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_clients + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def room_for_clients(max_clients: int) -> int:
    """Return how many clients this process can have: `max_clients`, or fewer if its limit does not allow so many."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max_clients if limit == resource.RLIM_INFINITY else min(max_clients, max(0, limit - RESERVED_FILES))


def room_for_others(max_clients: int) -> int:
    """Return how many connections may be open that serve no client: half-open ones, idle ones and short requests."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_OTHERS
    return min(MAX_OTHERS, max(MIN_OTHERS, limit - RESERVED_FILES - room_for_clients(max_clients)))


def warn_of_low_limit(max_clients: int) -> None:
    """Log it if the hard limit does not allow `max_clients`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < max_clients + RESERVED_FILES:
        logger.warning(
            "a worker may open %d files: that is room for %d clients, and not for MAX_CLIENTS=%d; raise its hard limit"
            " (ulimit -n, or docker run --ulimit nofile=…)",
            hard,
            max(0, hard - RESERVED_FILES),
            max_clients,
        )
