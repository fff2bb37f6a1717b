"""Whose clock is wrong: the processes' and PostgreSQL's, compared with each other."""

from collections.abc import Mapping
from statistics import median_low

from app.core.clock_difference import difference, is_off
from app.monitoring.worker_registry import RegistrySnapshot

_OWN, _POSTGRES = "this worker", "PostgreSQL"


def clock_problems(clocks: Mapping[str, float]) -> list[str]:
    """Return whose clocks differ from the others', as problems for people.

    Of two clocks nobody can tell which one is wrong: both are named.

    Args:
        clocks: by their owners' names, in seconds ahead of any one clock.
    """
    if len(clocks) < 2:  # noqa: PLR2004 - there is nothing to compare
        return []
    if len(clocks) == 2 and _POSTGRES in clocks:  # noqa: PLR2004 - see above
        usual, whose = clocks[_POSTGRES], "PostgreSQL's"
    else:
        usual, whose = median_low(clocks.values()), "the others'"
    return [
        f"{owner}'s clock is {difference(ahead - usual)} {whose}: latencies measured with it are not shown"
        for owner, ahead in clocks.items()
        if is_off(ahead - usual)
    ]


def collect_clocks(own_pod: str, own_ahead: float | None, snapshot: RegistrySnapshot | None) -> dict[str, float]:
    """Return how far each clock is ahead of this worker's, by its owner's name.

    The workers of one pod share a clock, so they count once.

    Args:
        own_pod: this worker's pod.
        own_ahead: how far this worker's clock is ahead of PostgreSQL's, if it is known.
        snapshot: the processes, in Redis mode.
    """
    clocks = {_OWN: 0.0}
    if own_ahead is not None:
        clocks[_POSTGRES] = -own_ahead
    if snapshot is None:
        return clocks
    for entry in snapshot.workers:
        pod = entry.fields.get("pod", "")
        if entry.key in snapshot.clocks and pod != own_pod:
            clocks.setdefault(f"pod {pod}", snapshot.clocks[entry.key])
    for entry in snapshot.listeners:
        ahead, fields = snapshot.clocks.get(entry.key), entry.fields
        if ahead is None:
            continue
        clocks[f"listener {fields.get('pod', '')}/{fields.get('program', '')}"] = ahead
        if (ahead_of_postgres := entry.number("clock_ahead")) is not None:
            clocks.setdefault(_POSTGRES, ahead - ahead_of_postgres)
    return clocks
