"""Thousands of clients that reconnect within a second, with their last id or without, as in tests/storm."""

from bench.environment import Environment
from bench.report import Figure, Report
from tests.storm.environment import Environment as StormEnvironment

BASE = "with ids"
_CLIENTS, _SHORT_CLIENTS = 5000, 200
_ROUNDS, _SHORT_ROUNDS = 3, 1
_WORKERS, _MATCHES = 4, 20


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Run storms of the same clients, and assert that no client misses an event."""
    clients = _SHORT_CLIENTS if short else _CLIENTS
    case = f"{clients} clients, {_WORKERS} workers"
    with environment.place() as place:
        settings = place.settings | {"USE_REDIS_NOTIFIER": "true"}
        with StormEnvironment(place.folder, place.database, settings, clients, _WORKERS, _MATCHES) as storms:
            storms.connect_clients()
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for config, with_id in ((BASE, True), ("without", False)):
                    storm = storms.storm(config, with_id=with_id)
                    figures = [
                        Figure("half served after", "s", storm.half),
                        Figure("all served after", "s", storm.all),
                    ]
                    if not with_id:
                        figures.append(Figure("snapshots of a match", "queries", storm.queries))
                    report.run("storm", case, config, *figures)
                    if storm.losses:
                        report.note(f"storm, {config}: connections lost before they were served: {dict(storm.losses)}")
