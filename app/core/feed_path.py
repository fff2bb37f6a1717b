"""Where a listener's feed is: a Unix socket in the run folder, which the containers of a pod may share."""

from pathlib import Path

from app.core.settings_sources import RUN_DIR


def feed_path(program: str) -> Path:
    """Return the path of a program's socket."""
    return RUN_DIR / f"feed-{program}.sock"


def feed_paths() -> list[Path]:
    """Return the sockets that are there."""
    return sorted(RUN_DIR.glob("feed-*.sock"))
