"""Every benchmark runs in its short form and gives plausible figures. Their values are not tested."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.__main__ import BENCHES, main
from bench.charts import CHARTS
from bench.report import Figure, Report, read_rows
from tests.support.process import ROOT, environment
from tests.support.servers import Servers

IN_SHORT_TIER, WITH_TESTS_OF_THEIR_OWN = "throughput", {"writers", "wal", "large"}


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment({}), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def measure(name: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark, check what it prints, and return the rows that it writes."""
    output = run("bench", name, "--short", "--json", str(folder / "figures.json"), *arguments)
    assert "ratio" in output
    assert "NOT" not in output.replace("NOTIFY", "")  # as in: NOT every client received
    rows: list[dict[str, Any]] = json.loads((folder / "figures.json").read_text())["rows"]
    assert {row["bench"] for row in rows} == {name}
    assert rows
    for row in rows:
        assert math.isfinite(row["median"]), row
        # The short form has so few subscriptions that the workers' memory may also become less meanwhile.
        assert row["median"] > 0 or row["metric"] == "further idle subscription", row
        assert row["runs"], row
        assert row["unit"], row
    return rows


def test_throughput_compares_both_modes_with_a_plain_listen_on_embedded_servers(tmp_path: Path) -> None:
    rows = measure(IN_SHORT_TIER, tmp_path)
    figures = {row["config"]: row["median"] for row in rows if row["metric"] == "events_per_s"}
    assert list(figures) == ["redis", "redis-without-feed", "postgres", "plain-listen"]
    run("bench.charts", str(tmp_path / "figures.json"), "--out", str(tmp_path / "charts"))
    chart = (tmp_path / "charts" / "throughput.svg").read_text()
    texts = {element.text for element in ET.fromstring(chart).iter() if element.tag.endswith("}text")}
    assert {"notifymux", "notifymux, direct mode", "psycopg and Starlette"} < texts


def measure_on(servers: Servers, name: str, folder: Path) -> list[dict[str, Any]]:
    given = servers.embedded
    rows = measure(name, folder, "--database", given.database_url, "--redis", given.redis_url)
    charted = {chart.metric for chart in CHARTS if name in {bench for bench, _ in chart.cases}}
    assert charted <= {row["metric"] for row in rows}
    return rows


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in BENCHES if name not in {IN_SHORT_TIER, *WITH_TESTS_OF_THEIR_OWN}])
def test_each_benchmark_gives_figures_on_given_servers(name: str, shared_servers: Servers, tmp_path: Path) -> None:
    measure_on(shared_servers, name, tmp_path)


@pytest.mark.long
def test_durable_commits_that_notify_wait_for_each_others_flush(shared_servers: Servers, tmp_path: Path) -> None:
    rows = measure_on(shared_servers, "writers", tmp_path)
    case = "synchronous_commit=on, with 1 ms more flush, 8 writers"
    rates = {row["config"]: row["median"] for row in rows if row["case"] == case}
    # The lock is held for the whole flush, so on no machine there are more; this is false if no flush is waited for.
    assert rates["NOTIFY"] < 1000
    assert rates["outbox row, shard lock and NOTIFY"] < 1000
    assert min(rates["no message"], rates["pg_logical_emit_message"]) > rates["NOTIFY"]
    watched = {row["config"]: row["median"] for row in rows if row["case"] == f"{case}, watch"}
    assert watched["watch, NOTIFY"] < 1000
    assert min(watched["watch, no message"], watched["watch, the WAL"]) > watched["watch, NOTIFY"]


@pytest.mark.long
def test_messages_of_1_mb_are_measured_on_embedded_servers(tmp_path: Path) -> None:
    rows = measure("large", tmp_path)
    assert {row["metric"].partition(",")[0] for row in rows} == {"messages_per_s", "listener", "workers", "redis"}


@pytest.mark.long
def test_both_sources_are_compared_on_embedded_servers(tmp_path: Path) -> None:
    rows = measure("wal", tmp_path)
    compared = {(row["case"], row["config"]) for row in rows if row["metric"] in {"events_per_s", "p50"}}
    cases = ("1 per transaction", "100 per transaction", "200/s", "2000/s")
    assert compared == {(case, source) for case in cases for source in ("notify", "wal")}


def test_what_cannot_be_measured_on_a_given_server_is_said(
    shared_servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shared_servers.embedded
    assert main(["wal", "--short", "--database", given.database_url, "--redis", given.redis_url]) == 0
    assert "wal_level is replica here, so nothing can read the WAL" in capsys.readouterr().out


def test_written_rows_can_be_read_and_a_ratio_is_the_median_over_the_rounds(tmp_path: Path) -> None:
    report = Report(["a machine"])
    for config, runs in {"ours": (10.0, 30.0, 2.0), "theirs": (5.0, 10.0, 1.0)}.items():
        for value in runs:
            report.run("throughput", "a case", config, Figure("events_per_s", "/s", value))
    report.note("a note")
    report.write(tmp_path / "figures.json")
    ours, theirs = read_rows(tmp_path / "figures.json")
    assert ours.ratio(theirs) == 2.0
    assert (ours.median, min(ours.runs), max(ours.runs)) == (10.0, 2.0, 30.0)
    table = report.table({"throughput": "theirs"}).splitlines()
    assert table[0] == "a machine"
    assert [line.split() for line in table if "ours" in line] == [["ours", "2.00", "10.0", "2.00", "30.0", "3"]]
    assert table[-1] == "a note"
