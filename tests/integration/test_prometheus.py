"""docs/grafana.json and docs/alerts.yaml in a real Prometheus, which scrapes a pod."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.process import ROOT
from tests.support.prometheus import Prometheus, program
from tests.support.waiting import wait_until

DASHBOARD, ALERTS = ROOT / "docs/grafana.json", ROOT / "docs/alerts.yaml"
# What Grafana puts in their place: all jobs, and the time of some scrapes.
VARIABLES = {"$job": ".*", "$__rate_interval": "5s"}


@pytest.fixture
def prometheus(
    settings: dict[str, str],
    connection: psycopg.Connection,
    tmp_path: Path,
    start_listener: StartListener,
    start_app: StartApp,
) -> Iterator[Prometheus]:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings, workers=2).wait_until_ready()
    with ExitStack() as stack:
        stack.enter_context(app.client(1))
        yield stack.enter_context(Prometheus(tmp_path / "prometheus", [app.port], ALERTS))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions(*, about_the_slot: bool = False) -> list[str]:
    """The queries of the panels: of those about the replication slot, or of all others."""
    found = []
    for panel in panels():
        if is_about_the_slot(panel) != about_the_slot:
            continue
        for target in panel["targets"]:
            expression = str(target["expr"])
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            found.append(expression)
    return found


def is_about_the_slot(panel: dict[str, Any]) -> bool:
    [row] = [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["title"] == "With SOURCE=wal"]
    return bool(panel["gridPos"]["y"] > row["gridPos"]["y"])


def has_values(prometheus: Prometheus, expression: str) -> bool:
    """Whether the expression has a series, and numbers only."""
    values = [float(series["value"][1]) for series in prometheus.query(expression)]
    return bool(values) and all(map(math.isfinite, values))


@pytest.mark.long
def test_every_query_of_the_dashboard_has_values_and_no_alert_fires_in_a_healthy_pod(prometheus: Prometheus) -> None:
    for expression in expressions():
        wait_until(lambda: has_values(prometheus, expression), 20, expression)  # noqa: B023
    for expression in expressions(about_the_slot=True):
        assert prometheus.query(expression) == []  # it is a query, and this pod has no slot

    def states() -> dict[str, tuple[str, str]]:
        return {name: (rule["health"], rule["state"]) for name, rule in prometheus.alerts().items()}

    # While Prometheus starts, a canary may be late: its alert is pending then, and no more a moment later.
    wait_until(lambda: set(states().values()) == {("ok", "inactive")}, 60, lambda: str(states()))


def test_the_dashboard_says_of_each_panel_what_it_shows_and_panels_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["description"], panel["title"]
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert all("$job" in target["expr"] for panel in panels() for target in panel["targets"])


def test_the_panels_about_the_slot_show_every_metric_that_is_documented() -> None:
    shown = {name for each in expressions(about_the_slot=True) for name in re.findall(r"notifymux_\w+", each)}
    table = re.findall(r"^\| `(notifymux_\w+)` \|", (ROOT / "docs/wal.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == set(table)  # tests/wal/test_operating.py compares the table with a pod


def test_prometheus_own_tool_accepts_the_alerts() -> None:
    result = subprocess.run(
        [program("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 0, result.stderr
    assert "SUCCESS" in result.stdout
