"""Two environments in two databases of one Redis, with one namespace: pub/sub knows no database numbers."""

import json
import time
from contextlib import ExitStack, closing

import psycopg
import redis

from tests.conftest import StartApp, StartListener, Verify
from tests.support.servers import Servers, database_settings, new_database
from tests.support.waiting import wait_until

FOREIGN = 300


def reads(client: redis.Redis) -> int:
    """How many times anybody has read a stream from a place on. (The append script reads the last entry only.)"""
    return int(client.info("commandstats").get("cmdstat_xrange", {"calls": 0})["calls"])


def test_another_environments_messages_are_said_once_wake_no_reads_without_bound_and_delay_nothing(
    servers: Servers, start_listener: StartListener, start_remote_app: StartApp, verify: Verify
) -> None:
    here = servers.settings | {"POD_NAME": "here"}
    other_url = new_database(servers.embedded.database_url, "staging")
    there = here | database_settings(other_url) | {"POD_NAME": "there", "REDIS_URL": f"{here['REDIS_URL']}/1"}
    start_listener(here).wait_until_aligned()
    app = start_remote_app(here).wait_until_ready()
    start_listener(there).wait_until_aligned()
    with ExitStack() as stack:
        connection = stack.enter_context(closing(psycopg.connect(servers.embedded.database_url, autocommit=True)))
        other = stack.enter_context(closing(psycopg.connect(other_url, autocommit=True)))
        client = stack.enter_context(app.client(1))
        redis_client = stack.enter_context(closing(redis.Redis.from_url(here["REDIS_URL"])))
        client.wait_for_initial_load()
        app.wait_for_log("another environment publishes there too")

        before = reads(redis_client)
        for number in range(FOREIGN):
            other.execute("SELECT pg_notify('match_change', %s)", [json.dumps({"match_id": 1, "data": -number})])
            if number % 10 == 0:
                connection.execute(
                    "SELECT pg_notify('match_change', %s)", [json.dumps({"match_id": 1, "data": number})]
                )
            time.sleep(0.005)  # so that the worker takes each message by itself
        client.wait_for_updates(FOREIGN // 10)
        with closing(redis.Redis.from_url(there["REDIS_URL"])) as elsewhere:
            wait_until(lambda: elsewhere.xlen("{pg_notify}:log") >= FOREIGN)
        assert reads(redis_client) - before < FOREIGN / 5, "one for each of the other's messages before"

        assert [update["data"] for update in client.updates] == list(range(0, FOREIGN, 10))
        assert not client.of_type("resync")
        assert app.log.count("another environment publishes there too") == 1
        for settings in (here, there | {"USE_REDIS_NOTIFIER": "false"}):
            verified = verify(settings)
            assert "Redis databases" in verified.with_status("warning")
            assert "REDIS_NAMESPACE" in verified.remedy("Redis databases")


def test_an_environment_with_a_namespace_of_its_own_hears_nothing_of_another(
    servers: Servers, start_listener: StartListener, verify: Verify
) -> None:
    here = servers.settings | {"POD_NAME": "here", "USE_REDIS_NOTIFIER": "false"}
    there = here | database_settings(new_database(servers.embedded.database_url, "staging"))
    there |= {"REDIS_URL": f"{here['REDIS_URL']}/1", "REDIS_NAMESPACE": "staging"}
    start_listener(here).wait_until_aligned()
    start_listener(there).wait_until_aligned()
    assert "Redis databases" in verify(here).with_status("ok")
