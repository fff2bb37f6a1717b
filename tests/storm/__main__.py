"""`python -m tests.storm [--clients 5000] [--workers 2] [--matches 20]`: idle clients, and storms."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.storm.environment import Environment, Memory, Row
from tests.support.servers import Servers, database_settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--matches", type=int, default=20)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="notifymux-storm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run under an account of their own
        servers = Servers(folder / "servers")
        try:
            servers.start_postgres()
            servers.start_redis()
            database = servers.embedded.database_url
            redis = {"REDIS_URL": servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true"}
            settings = database_settings(database) | redis
            with Environment(folder, database, settings, options.clients, options.workers, options.matches) as arena:
                sys.stdout.write(report(arena, *run(arena)) + "\n")
        finally:
            servers.end()
    return 0


def run(arena: Environment) -> tuple[Memory, list[Row]]:
    """Every kind of storm, one after the other."""
    memory = arena.gather()
    rows = [
        arena.storm("all go, back with ids", keep=True),
        arena.storm("all go, back without", keep=False),
        arena.storm("a worker killed, with ids", keep=True, kill=True),
        arena.storm("a worker killed, without", keep=False, kill=True),
    ]
    return memory, rows


def report(arena: Environment, memory: Memory, rows: Sequence[Row]) -> str:
    """The figures."""
    each = (memory.after - memory.before) / arena.clients / 1024
    lines = [
        f"{arena.clients} clients, {arena.workers} workers",
        f"workers' memory, PSS: {memory.before / 2**20:.0f} MiB, idle clients {each:.1f} KiB each",
        f"{'back within a second':28}{'half, s':>9}{'all, s':>9}{'recovered':>11}{'snapshots':>11}{'queries':>9}  lost",
        *(
            f"{row.name:28}{row.half:9.2f}{row.all:9.2f}{row.recovered:11}{row.snapshots:11}{row.queries:9}"
            f"  {', '.join(f'{why}: {count}' for why, count in row.losses.items()) or '-'}"
            for row in rows
        ),
        "times until served; queries: of the match with the most; lost: connections before they were served",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
