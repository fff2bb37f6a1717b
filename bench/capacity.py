"""`python -m bench.capacity`: what a deployment takes, computed from the unit costs in docs/performance.md.

The document has both: the unit costs, which benches measure, and the tables that this prints. Nothing is measured here.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

_DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"
_ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<number>[\d.,]+) (?P<unit>[^|]+?) \| [^|]+ \|$", re.MULTILINE)

PODS, CLIENTS = (1, 3, 10, 50), (1_000, 100_000, 1_000_000)
WORKERS = 4  # of a pod
EVENTS_PER_SECOND, FRAMES_PER_CLIENT = 500, 0.5  # a second
LISTENERS_MAX = 3  # hold a session of PostgreSQL; the other pods' listeners are reserves


UnitCosts = Mapping[str, float]  # by the names that the document gives them


def unit_costs(text: str) -> UnitCosts:
    """Return those of a document's section Capacity."""
    section = text.partition("\n### Unit costs\n")[2].partition("\n### ")[0]
    return {row["name"]: float(row["number"].replace(",", "")) for row in _ROW.finditer(section)}


def pods_table(costs: UnitCosts) -> str:
    """Return what pods take without clients, as a table in Markdown."""
    return _table("pods", PODS, [_of_pods(costs, pods) for pods in PODS])


def clients_table(costs: UnitCosts) -> str:
    """Return what clients take besides, as a table in Markdown."""
    return _table("clients", CLIENTS, [_of_clients(costs, clients) for clients in CLIENTS])


def _of_pods(costs: UnitCosts, pods: int) -> dict[str, str]:
    listeners, workers = min(pods, LISTENERS_MAX), pods * WORKERS
    reserves = pods - listeners
    remote = reserves * WORKERS
    at_rest = (
        listeners * costs["listener at rest: Redis commands"]
        + reserves * costs["reserve at rest: Redis commands"]
        + workers * costs["worker at rest: Redis commands"]
    )
    commands = at_rest + EVENTS_PER_SECOND * costs["event: Redis commands"]
    sent = EVENTS_PER_SECOND * remote * costs["event to a worker through Redis: bytes"]
    redis = EVENTS_PER_SECOND * (
        costs["event in Redis: CPU"] + remote * costs["event to a worker through Redis: Redis's CPU"]
    )
    fed = listeners * WORKERS * costs["event in a worker that is fed: CPU"]
    heard = fed + remote * costs["event in a worker through Redis: CPU"]
    own = EVENTS_PER_SECOND * (heard + listeners * costs["event in a listener: CPU"])
    kept = "1" if listeners == 1 else f"{costs['commits kept with four sessions']:.2f} or more"
    return {
        "sessions that LISTEN, and direct mode's": f"{listeners}; {workers}",
        "commits/s kept, as a multiple of those with one session": kept,
        "workers that hear Redis": f"{remote}",
        "Redis commands/s": f"{_two_digits(commands):,}",
        "bytes/s from Redis": f"{_two_digits(sent / 1e6)} MB",
        "Redis's CPU, of a core": f"{redis / 1e6:.0%}",
        "CPU of all pods, cores": f"{_two_digits(own / 1e6)}",
        "memory of all pods": _memory(pods * (costs["pod at rest: memory"] + WORKERS * costs["history: memory"])),
    }


def _of_clients(costs: UnitCosts, clients: int) -> dict[str, str]:
    frames = clients * FRAMES_PER_CLIENT
    cores = frames * costs["frame to a client: CPU"] / 1e6
    return {
        "frames/s": f"{frames:,.0f}",
        "CPU of the frames, cores": f"{_two_digits(cores)}",
        "memory of the clients": _memory(clients * costs["idle client: memory"] / 1024),
        "workers by their limit (`MAX_CLIENTS` 10,000)": f"{-(-clients // 10_000)}",
        "workers at half a core of frames each": f"{-(-cores // 0.5):.0f}",
        "time until all are back, on two cores": f"{_two_digits(clients / costs['crowd on two cores: served'])} s",
    }


def _memory(mebibytes: float) -> str:
    return f"{_two_digits(mebibytes)} MiB" if mebibytes < 1000 else f"{_two_digits(mebibytes / 1024)} GiB"


def _two_digits(number: float) -> float | int:
    rounded = float(f"{number:.2g}")
    return int(rounded) if rounded >= 10 or rounded == int(rounded) else rounded


def _table(title: str, columns: tuple[int, ...], rows: list[dict[str, str]]) -> str:
    lines = [f"| {title} | {' | '.join(f'{each:,}' for each in columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row[name] for row in rows)} |" for name in rows[0]]
    return "\n".join(lines)


def main() -> int:
    """Print both tables."""
    costs = unit_costs(_DOCUMENT.read_text(encoding="utf-8"))
    sys.stdout.write(f"{pods_table(costs)}\n\n{clients_table(costs)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
