"""`python -m tests.storm [--clients 5000] [--workers 2] [--matches 20] [--gap]`: many clients that reconnect at once.

It prints the memory of idle clients, and for each kind of storm how long it takes until all clients are served again;
with `--gap` how long it takes until all have a new snapshot after a gap, with a query that takes 20 ms.
`python -m tests.storm --spread`: how evenly clients spread over four workers, and how long it takes to connect one.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.storm.environment import Environment, Storm, WorkerMemory
from tests.storm.spread import show
from tests.support.servers import database_settings, temporary_servers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--matches", type=int, default=20)
    parser.add_argument("--gap", action="store_true")
    parser.add_argument("--spread", action="store_true")
    options = parser.parse_args(arguments)
    if options.spread:
        with temporary_servers("spread") as servers:
            show(servers.folder, database_settings(servers.embedded.database_url))
        return 0
    with (
        temporary_servers("storm") as servers,
        Environment(
            servers.folder,
            servers.embedded.database_url,
            servers.settings,
            options.clients,
            options.workers,
            options.matches,
            query_seconds=0.02 if options.gap else 0,
        ) as environment,
    ):
        sys.stdout.write((gap_text(environment) if options.gap else table(environment, *run(environment))) + "\n")
    return 0


def run(environment: Environment) -> tuple[WorkerMemory, list[Storm]]:
    """Connect the clients, then run every kind of storm."""
    memory = environment.connect_clients()
    storms = [
        environment.storm("back with ids", with_id=True),
        environment.storm("back without", with_id=False),
        environment.storm("a worker killed, with ids", with_id=True, kill_worker=True),
        environment.storm("a worker killed, without", with_id=False, kill_worker=True),
    ]
    return memory, storms


def gap_text(environment: Environment) -> str:
    """Connect the clients, have a gap, and format its figures."""
    memory = environment.connect_clients()
    gap = environment.gap()
    environment.assert_complete()
    return (
        f"{environment.clients} clients, {environment.workers} workers, a gap: half had a new snapshot after"
        f" {gap.half:.2f} s, all after {gap.all:.2f} s, {gap.stale} were told that they wait;"
        f" at most {gap.connections} connections for snapshots;"
        f" workers' memory, PSS: {memory.after / 2**20:.0f} MiB before, at most {gap.memory / 2**20:.0f} MiB"
    )


def table(environment: Environment, memory: WorkerMemory, storms: Sequence[Storm]) -> str:
    """Format the figures, with one row per storm."""
    per_client = (memory.after - memory.before) / environment.clients / 1024
    lines = [
        f"{environment.clients} clients, {environment.workers} workers",
        f"workers' memory, PSS: {memory.before / 2**20:.0f} MiB, idle clients {per_client:.1f} KiB each",
        f"{'reconnect within 1 s':28}{'half, s':>9}{'all, s':>9}{'recovered':>11}{'snapshots':>11}{'queries':>9}  lost",
        *(
            f"{storm.name:28}{storm.half:9.2f}{storm.all:9.2f}{storm.recovered:11}{storm.snapshots:11}{storm.queries:9}"
            f"  {', '.join(f'{reason}: {count}' for reason, count in storm.losses.items()) or '-'}"
            for storm in storms
        ),
        "times until served; queries: of the match with the most; lost: connections before they were served",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
