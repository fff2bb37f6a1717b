"""`/metrics`, as Prometheus scrapes it: every metric is documented, plausible, and covers every process."""

import math
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.conftest import StartApp, StartListener, fresh_database, fresh_redis_place, redis_mode
from tests.support.documents import OPERATIONS
from tests.support.process import ROOT
from tests.support.programs import App, Listener
from tests.support.servers import Servers
from tests.support.waiting import hold_for, wait_until

NAME = re.compile(r"\bnotifymux_\w+")


class Scrape(NamedTuple):
    """The result of one scrape."""

    families: dict[str, str]  # name to type
    samples: list[Sample]

    def value(self, name: str, **labels: str) -> float:
        """The value of the only sample with a name and labels."""
        [found] = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        return float(found)

    def has(self, name: str) -> bool:
        return any(sample.name == name for sample in self.samples)


def scrape(app: App) -> Scrape:
    code, body = app.get("/metrics")
    assert code == 200
    families = list(text_string_to_metric_families(body.decode()))
    names = {f"{family.name}_total" if family.type == "counter" else family.name: family.type for family in families}
    return Scrape(names, [sample for family in families for sample in family.samples])


def ready(app: App, workers: int) -> App:
    """Wait until so many workers serve and all of them are ready."""
    app.wait_until_ready()
    for client in app.client_of_each_worker("ready", workers).values():
        client.close()
    wait_until(lambda: scrape(app).value("notifymux_ready") == 1)
    return app


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def notify(connection: psycopg.Connection, count: int = 1) -> None:
    connection.execute("SELECT pg_notify('match_change', n::text) FROM generate_series(1, %s) n", [count])


class Pod(NamedTuple):
    listener: Listener
    app: App
    connection: psycopg.Connection


@pytest.fixture(scope="module")
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A listener and two workers in one folder, as in the container."""
    folder = tmp_path_factory.mktemp("pod")
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(request))
        settings = redis_mode(database, stack.enter_context(fresh_redis_place(request)))
        listener = stack.enter_context(Listener(folder, settings)).wait_until_aligned()
        app = ready(stack.enter_context(App(folder, settings, workers=2)), 2)
        yield Pod(listener, app, stack.enter_context(closing(psycopg.connect(database, autocommit=True))))


def documented() -> dict[str, str]:
    """The metrics in docs/operations.md and their types."""
    text = OPERATIONS.read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(notifymux_\w+)` \| (\w+) \|", text, re.MULTILINE))


def test_every_metric_is_documented_with_its_type_and_every_documented_one_is_there(pod: Pod) -> None:
    events = scrape(pod.app).value("notifymux_worker_events_total")
    notify(pod.connection)  # a number, which no client hears: only then there is a metric of that
    wait_until(lambda: scrape(pod.app).value("notifymux_worker_events_total") == events + 2)  # by both workers
    wait_until(lambda: "notifymux_worker_events_unroutable_total" in scrape(pod.app).families)
    assert scrape(pod.app).families == documented()


def test_names_follow_the_conventions(pod: Pod) -> None:
    for name, kind in scrape(pod.app).families.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert name.endswith("_seconds") or kind != "histogram", name


def test_every_alert_uses_existing_metrics_and_is_explained(pod: Pod) -> None:
    rules = yaml.safe_load((ROOT / "docs/alerts.yaml").read_text(encoding="utf-8"))
    alerts = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    there = scrape(pod.app)
    for alert, expression in alerts.items():
        assert NAME.findall(expression), alert
        if alert.startswith("NotifymuxSlot"):
            continue  # with SOURCE=wal, in tests/wal
        for name in NAME.findall(expression):
            assert there.has(name), f"{alert}: {name}"
    rows = re.findall(r"^\| (`Notifymux.*?) \|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(Notifymux\w+)`", " ".join(rows))) == set(alerts)


def test_every_worker_answers_with_the_sum_over_the_listener_and_all_workers(pod: Pod) -> None:
    before = scrape(pod.app)
    notify(pod.connection, 100)

    def have_grown(now: Scrape) -> bool:
        return (
            now.value("notifymux_worker_events_total") - before.value("notifymux_worker_events_total") == 200
            and now.value("notifymux_listener_events_appended_total")
            - before.value("notifymux_listener_events_appended_total")
            >= 100
        )

    wait_until(lambda: have_grown(scrape(pod.app)))
    clients = pod.app.client_of_each_worker("counted", 2)
    try:
        wait_until(lambda: {scrape(pod.app).value("notifymux_clients") for _ in range(8)} == {2.0})
    finally:
        for client in clients.values():
            client.close()
    wait_until(lambda: scrape(pod.app).value("notifymux_clients") == 0)


def test_measured_values_are_plausible(pod: Pod) -> None:
    def measured(now: Scrape) -> bool:
        counts = [
            now.value(f"notifymux_{name}_seconds_count") for name in ("latency", "last_hop", "listener_round_trip")
        ]
        return min(counts) >= 2

    now = wait_until(lambda: shown if measured(shown := scrape(pod.app)) else None)
    assert now
    assert now.value("notifymux_ready") == 1
    assert now.value("notifymux_listener_connected") == 1
    assert 0 <= now.value("notifymux_canary_age_seconds") < 5
    assert 0 < now.value("notifymux_latency_seconds_sum") < now.value("notifymux_latency_seconds_count")
    assert now.value("notifymux_last_hop_seconds_sum") < now.value("notifymux_latency_seconds_sum")
    assert now.value("notifymux_postgres_queue_usage_ratio") == 0
    listening = now.value("notifymux_postgres_listen_connections")
    connections = now.value("notifymux_postgres_connections")
    assert 1 <= listening <= connections <= now.value("notifymux_postgres_max_connections")
    [build] = [sample for sample in now.samples if sample.name == "notifymux_build_info"]
    assert build.labels["mode"] == "redis"
    assert re.match(r"\d+\.\d+", build.labels["version"])


def test_resumes_snapshots_and_slow_closes_are_counted(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    failing = {"SNAPSHOT_QUERY": "SELECT to_json(1) FROM no_such_table WHERE match_id = %(match_id)s"}
    app = start_app(settings | failing).wait_until_ready()
    with app.client(1) as client:
        position = client.wait_for_initial_load()["id"]
    for last in (position, position, "1-1"):
        with app.client(1, query=f"?last_event_id={last}") as client:
            client.wait_for_initial_load()

    def counted(now: Scrape) -> Mapping[str, float]:
        return {
            "recovered": now.value("notifymux_resumes_total", outcome="recovered"),
            "snapshot": now.value("notifymux_resumes_total", outcome="snapshot"),
            "queries": now.value("notifymux_snapshot_queries_total"),
            "failures": now.value("notifymux_snapshot_failures_total"),
        }

    wait_until(lambda: counted(scrape(app)) == {"recovered": 2, "snapshot": 1, "queries": 2, "failures": 2})


def test_when_a_worker_is_killed_its_counters_stay_and_its_gauges_are_gone(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = ready(start_app(settings, workers=2), 2)
    clients = app.client_of_each_worker(1, 2)
    wait_until(lambda: scrape(app).value("notifymux_clients") == 2)
    notify(connection, 50)
    wait_until(lambda: scrape(app).value("notifymux_worker_events_total") == 100)
    files = set((Path(f"/proc/{app.pid}/cwd").resolve() / ".run/metrics").rglob("*.db"))
    for worker in clients:
        os.kill(worker, signal.SIGKILL)
        wait_until(partial(is_gone, worker))
        assert scrape(app).value("notifymux_worker_events_total") == 100
        ready(app, 2)
    wait_until(lambda: scrape(app).value("notifymux_clients") == 0)
    notify(connection, 50)
    wait_until(lambda: scrape(app).value("notifymux_worker_events_total") == 200)
    assert set((Path(f"/proc/{app.pid}/cwd").resolve() / ".run/metrics").rglob("*.db")) == files, "no more of them"


def test_when_a_listener_is_killed_its_gauges_are_gone_and_its_counters_stay_until_it_restarts(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    app = ready(start_app(settings), 1)  # until its first second has passed, its gauges are those of its start
    notify(connection, 500)
    appended = "notifymux_listener_events_appended_total"
    wait_until(lambda: scrape(app).value(appended) >= 500)
    listener.kill()
    now = scrape(app)
    assert not now.has("notifymux_listener_connected")
    assert not now.has("notifymux_listener_buffered_events")
    assert now.value(appended) >= 500
    wait_until(lambda: scrape(app).value("notifymux_ready") == 0)
    wait_until(lambda: math.isnan(scrape(app).value("notifymux_postgres_listen_connections")))
    start_listener(settings).wait_until_aligned()
    wait_until(lambda: scrape(app).value("notifymux_ready") == 1)
    wait_until(lambda: scrape(app).value("notifymux_listener_connected") == 1)
    wait_until(lambda: scrape(app).value("notifymux_worker_gaps_total", cause="epoch") == 1)
    assert scrape(app).value(appended) < 500


@pytest.mark.long
def test_an_outage_of_redis_shows_in_the_buffered_events_and_the_reconnects(
    servers: Servers,
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    own = settings | {"REDIS_URL": servers.embedded.redis_url}
    start_listener(own).wait_until_aligned()
    app = start_app(own).wait_until_ready()
    wait_until(lambda: scrape(app).value("notifymux_fed") == 1)
    servers.stop_redis()
    notify(connection, 300)
    wait_until(lambda: scrape(app).value("notifymux_listener_buffered_events") >= 300)
    assert scrape(app).value("notifymux_listener_buffered_bytes") > 300 * 50
    assert (scrape(app).value("notifymux_fed"), scrape(app).value("notifymux_ready")) == (1, 1)
    servers.start_redis()
    wait_until(lambda: scrape(app).value("notifymux_listener_buffered_events") == 0)
    wait_until(lambda: scrape(app).value("notifymux_listener_reconnects_total", server="redis") == 1)
    wait_until(lambda: scrape(app).value("notifymux_worker_reconnects_total", server="redis") == 1)
    assert scrape(app).value("notifymux_listener_reconnects_total", server="postgres") == 0


def test_in_postgresql_mode_workers_have_metrics_and_no_last_hop(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = ready(start_app(settings | {"USE_REDIS_NOTIFIER": "false"}, workers=2), 2)
    notify(connection, 10)
    wait_until(lambda: scrape(app).value("notifymux_worker_events_total") == 20)
    wait_until(lambda: scrape(app).value("notifymux_latency_seconds_count") >= 4)
    now = scrape(app)
    assert now.value("notifymux_last_hop_seconds_count") == 0
    assert now.value("notifymux_postgres_listen_connections") >= 2
    assert now.value("notifymux_worker_reconnects_total", server="postgres") == 0
    assert now.value("notifymux_build_info", version=_version(now), mode="postgres") == 1


def _version(now: Scrape) -> str:
    [build] = [sample.labels["version"] for sample in now.samples if sample.name == "notifymux_build_info"]
    return build


def test_without_a_writable_folder_a_worker_shows_its_own_metrics_and_logs_it_once(
    settings: dict[str, str],
    connection: psycopg.Connection,
    tmp_path: Path,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    (tmp_path / ".run").write_text("in the way")
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings, workers=2)
    app.wait_until_ready()
    wait_until(lambda: [bool(row["position"]) for row in app.get("/api/status")[1]["workers"]] == [True, True])
    notify(connection, 10)
    wait_until(lambda: {scrape(app).value("notifymux_worker_events_total") for _ in range(8)} == {10.0})
    # Never the sum. A worker that has not answered before may not have counted all of its own yet.
    hold_for(2, lambda: scrape(app).value("notifymux_worker_events_total") <= 10)
    assert not scrape(app).has("notifymux_listener_connected")
    assert app.log.count("/metrics will show the worker that answers") == 1
    assert listener.log.count("/metrics will not show this listener") == 1


@pytest.mark.long
def test_a_scrape_while_programs_start_and_end_is_complete(
    settings: dict[str, str], start_app: StartApp, start_listener: StartListener
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    until = time.monotonic() + 6
    while time.monotonic() < until:
        listener = start_listener(settings)
        wait_until(lambda: scrape(app).has("notifymux_worker_events_total") and "forwarding" in listener.log)  # noqa: B023
        listener.kill()
