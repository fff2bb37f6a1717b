"""Whether the container has the memory that the programs take at rest; with less, it swaps or is killed.

Events come on top: `HISTORY_BYTES` for each worker, and twice `BUFFER_BYTES` in an outage of Redis.
"""

import logging
from pathlib import Path, PurePosixPath

from app.core.config import Settings

_MIB = 1 << 20
# With a margin for the start; the default settings take 256 MiB, and 512 MiB with the demo, as the README says.
_COMMON_MIB, _WORKER_MIB, _STANDBY_MIB, _DEMO_MIB = 96, 40, 40, 256

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")  # cgroups(7)

logger = logging.getLogger(__name__)


def warn_of_little_memory(settings: Settings, *, demo: bool) -> None:
    """Log it if the container may take less memory than the programs need."""
    limit, needed = _limit(), _needed(settings, demo=demo)
    if limit is not None and limit < needed:
        advice = "give it more" if demo else "give it more, or lower WEB_CONCURRENCY"
        logger.warning(
            "this container has %d MiB of memory, and %s about %d MiB at rest: %s",
            limit // _MIB,
            f"{settings.web_concurrency} workers{' and the demo' if demo else ''} take",
            needed // _MIB,
            advice,
        )


def _needed(settings: Settings, *, demo: bool) -> int:
    standby = _STANDBY_MIB if settings.listener_standby else 0
    return (_COMMON_MIB + settings.web_concurrency * _WORKER_MIB + standby + (_DEMO_MIB if demo else 0)) * _MIB


def _limit() -> int | None:
    """Return the least limit of this process's cgroup and of those around it, by version 2 or 1; None without one."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    limits = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:
            limits += _limits(_CGROUPS, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(_CGROUPS / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """Return the limits of a cgroup and of those that contain it. In a container, only `root` may be there."""
    found = []
    cgroup = PurePosixPath(path.lstrip("/"))
    for folder in (cgroup, *cgroup.parents):
        try:
            found.append(int((root / folder / name).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # there is none, or "max"
    return found
