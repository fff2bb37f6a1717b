"""Thousands of clients that all reconnect within a second, with their last id or without; as tests/storm has it."""

from bench.environment import Environment
from bench.report import Figure, Report
from tests.storm.environment import Environment as Storms

BASE = "with ids"
_CLIENTS, _SHORT_CLIENTS = 5000, 200
_ROUNDS, _SHORT_ROUNDS = 3, 1
_WORKERS, _MATCHES = 4, 20


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """Storms of one crowd, one after the other; every client is checked to have missed nothing."""
    clients = _SHORT_CLIENTS if short else _CLIENTS
    case = f"{clients} clients, {_WORKERS} workers"
    with arena.place() as place:
        settings = place.settings | {"USE_REDIS_NOTIFIER": "true"}
        with Storms(place.folder, place.database, settings, clients, _WORKERS, _MATCHES) as storms:
            storms.connect_clients()
            for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
                for config, keep in ((BASE, True), ("without", False)):
                    row = storms.storm(config, with_id=keep)
                    half, everybody = (
                        Figure("half served after", "s", row.half),
                        Figure("all served after", "s", row.all),
                    )
                    report.run("storm", case, config, half, everybody)
                    if not keep:
                        report.run("storm", case, config, Figure("snapshots of a match", "queries", row.queries))
                    if row.losses:
                        report.note(f"storm, {config}: connections lost before they were served: {dict(row.losses)}")
