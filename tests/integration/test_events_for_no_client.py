"""Events that no client hears: the log, the metrics, the status and `verify` say so, on real servers."""

import psycopg
import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.integration.test_metrics import scrape
from tests.support.waiting import wait_until

PAYLOADS = {
    "text": ["no JSON", '{"match_id": NaN}', '{"match_id": 1,}', '{"match_id": 1, "name": "\\ud800"}'],
    "not_an_object": ['[{"match_id": 1}]', "7"],
    "no_key": ['{"id": 1}'],
    "no_id": ['{"match_id": true}'],
    "empty": [""],
}


@pytest.mark.parametrize("use_redis", ["true", "false"])
def test_events_that_no_client_hears_are_counted_and_said_everywhere(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
    use_redis: str,
) -> None:
    settings = settings | {"USE_REDIS_NOTIFIER": use_redis}
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        for payload in [payload for payloads in PAYLOADS.values() for payload in payloads]:
            connection.execute("SELECT pg_notify('match_change', %s)", [payload])
        connection.execute("""NOTIFY match_change, '{"match_id": 1}'""")
        assert len(client.wait_for_updates(1)) == 1

    counts = {cause: len(payloads) for cause, payloads in PAYLOADS.items()}
    shown = app.get("/api/status")[1]["unroutable"]
    assert {(each["channel"], each["cause"]): each["events"] for each in shown} == {
        ("match_change", cause): count for cause, count in counts.items()
    }
    name = "notifymux_worker_events_unroutable_total"
    wait_until(
        lambda: (
            counts
            == {
                sample.labels["cause"]: sample.value
                for sample in scrape(app).samples
                if sample.name == name and sample.labels["channel"] == "match_change"
            }
        )
    )
    for each in shown:
        assert app.log.count(each["text"]) == 1
    if use_redis == "true":
        wait_until(lambda: "4 on match_change: the payload is text" in verify(settings).log, within=30)
        verified = verify(settings)
        assert verified.code == 0
        assert "events for no client" in verified.with_status("warning")
        assert "ROUTING_KEY" in verified.remedy("events for no client")
