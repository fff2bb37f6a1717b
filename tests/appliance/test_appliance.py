"""The appliance with its embedded servers, started by `./entrypoint.sh` with the real supervisord.conf."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from dotenv import dotenv_values
from psycopg.conninfo import make_conninfo

from tests.support.process import ROOT, Process, environment
from tests.support.programs import Client, get
from tests.support.servers import free_port
from tests.support.waiting import wait_until

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
MATCH = 1  # the demo's


class Appliance(Process):
    """An appliance that runs from its own copy of the checkout; `more` is added to its supervisord.conf."""

    def __init__(self, folder: Path, more: str = "", **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        for name in ("app", "listener", "notifymux"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("supervisord.conf", "entrypoint.sh"):
            shutil.copy(ROOT / name, folder)
        with (folder / "supervisord.conf").open("a") as file:
            file.write(more)
        self.set(**settings)
        self.settings = {"PYTHONPATH": "", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        super().__init__(["./entrypoint.sh"], folder, self.settings)

    def ctl(self, *arguments: str) -> str:
        """supervisorctl, as an operator calls it from the project's folder."""
        return subprocess.run(
            ["supervisorctl", *arguments],
            cwd=self.folder,
            env=environment(self.settings),
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def pid_of(self, program: str) -> int:
        return int(self.ctl("pid", program))

    def states(self) -> dict[str, str]:
        return {line.split()[0]: line.split()[1] for line in self.ctl("status").splitlines()}

    def wait_until_ready(self, within: float = 60) -> None:
        wait_until(self._is_ready, within, lambda: f"ready:\n{self.log[-3000:]}")

    def _is_ready(self) -> bool:
        assert self.running, self.log[-3000:]
        return get(self.port, "/readyz")[0] == 200

    def set(self, **settings: str) -> None:
        """Edits .env."""
        given = {"HOST": "127.0.0.1", "PORT": str(self.port), **settings}
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))

    @property
    def embedded(self) -> dict[str, str]:
        """The settings that lead the programs to the embedded servers."""
        values = dotenv_values(self.folder / ".run" / "embedded.env", interpolate=False)
        return {name: value or "" for name, value in values.items()}

    def alignments(self) -> int:
        """How often a listener has aligned."""
        return self.log.count("aligned at")

    def has_aligned_since(self, before: int) -> bool:
        return self.alignments() > before

    @property
    def database_url(self) -> str:
        """The embedded PostgreSQL's."""
        names = {
            "host": "DB_HOST",
            "port": "DB_PORT",
            "user": "DB_USER",
            "password": "DB_PASSWORD",
            "dbname": "DB_NAME",
        }
        given = self.embedded
        return make_conninfo(**{name: given[variable] for name, variable in names.items()})

    def listening(self) -> int:
        """The number of sessions that LISTEN."""
        with closing(psycopg.connect(self.database_url)) as connection:
            row = connection.execute(LISTENING).fetchone()
        assert row
        return int(row[0])


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("appliance") / "pod") as appliance:
        appliance.wait_until_ready()
        yield appliance


@pytest.fixture
def client(appliance: Appliance) -> Iterator[Client]:
    with Client(appliance.port, MATCH, "viewer") as client:
        yield client


def test_a_client_of_the_demo_match_gets_a_snapshot_and_then_updates(appliance: Appliance, client: Client) -> None:
    assert client.wait_for_initial_load()["data"]["match"]["id"] == MATCH
    updates = client.wait_for_updates(20)
    assert {update["match_id"] for update in updates} == {MATCH}
    ids = [tuple(map(int, update["id"].split("-"))) for update in updates]
    assert ids == sorted(set(ids))


def test_the_pages_of_the_demo_are_served_and_linked(appliance: Appliance) -> None:
    code, page = get(appliance.port, "/demo")
    assert (code, b"scoreboard" in page, b'href="demo/matches"' in page) == (200, True, True)
    assert get(appliance.port, "/demo/matches")[0] == 200
    assert get(appliance.port, "/api/status")[1]["embedded"]


def test_one_connection_listens_while_four_workers_serve(appliance: Appliance, client: Client) -> None:
    workers = psutil.Process(appliance.pid_of("app")).children()
    assert len(workers) == 4
    seen = len(client.updates)

    def one_and_still_serving() -> bool:
        assert appliance.listening() == 1
        return len(client.updates) > seen + 20

    wait_until(one_and_still_serving)


def test_subscribing_in_redis_shows_the_events_with_their_ids(appliance: Appliance) -> None:
    with closing(redis.Redis.from_url(str(appliance.embedded["REDIS_URL"]))) as client:
        pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        pubsub.subscribe("pg_notify:events")
        message = wait_until(lambda: pubsub.get_message(timeout=1))
        pubsub.close()
    assert set(json.loads(message["data"])) >= {"id", "channel", "payload", "at"}


def test_one_variable_switches_to_direct_listen_and_back(appliance: Appliance) -> None:
    appliance.set(USE_REDIS_NOTIFIER="false")
    appliance.ctl("restart", "app")
    appliance.wait_until_ready()
    wait_until(lambda: appliance.listening() == 5, what="5 rows until the listener is stopped")
    appliance.ctl("stop", "listener")
    wait_until(lambda: appliance.listening() == 4, what="4 rows without the listener")
    with Client(appliance.port, MATCH, "direct") as client:
        client.wait_for_updates(10)
        assert {update["id"] for update in client.updates} == {None}
    assert get(appliance.port, "/readyz")[1]["mode"] == "postgres"
    appliance.set()
    appliance.ctl("start", "listener")
    appliance.ctl("restart", "app")
    appliance.wait_until_ready()
    wait_until(lambda: appliance.listening() == 1)
    with Client(appliance.port, MATCH, "redis") as client:
        assert all(update["id"] for update in client.wait_for_updates(10))


@pytest.mark.parametrize("program", ["listener", "app"])
def test_a_restart_brings_the_program_back_with_another_pid(appliance: Appliance, program: str) -> None:
    before = appliance.pid_of(program)
    assert "started" in appliance.ctl("restart", program)
    assert appliance.pid_of(program) != before
    appliance.wait_until_ready()


@pytest.mark.parametrize(
    "program",
    ["listener", "app", *(pytest.param(name, marks=pytest.mark.long) for name in ("postgres", "valkey", "demo"))],
)
def test_a_killed_program_runs_again_and_clients_are_served(appliance: Appliance, program: str) -> None:
    before = appliance.pid_of(program)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: appliance.states()[program] == "RUNNING" and appliance.pid_of(program) != before, 40)
    appliance.wait_until_ready()

    def served() -> bool:
        with Client(appliance.port, MATCH, "after") as client:
            return bool(wait_until(lambda: client.code is not None or len(client.updates) > 3)) and client.code is None

    wait_until(served, 40)


def test_a_killed_worker_is_replaced_and_clients_of_other_workers_miss_nothing(appliance: Appliance) -> None:
    clients = [Client(appliance.port, MATCH, f"client-{number}") for number in range(24)]
    victim = clients[0].worker
    spared = next(client for client in clients if client.worker != victim)
    os.kill(victim, signal.SIGKILL)
    clients[0].wait_until_closed()
    seen = len(spared.updates)
    spared.wait_for_updates(seen + 10)
    ids = [tuple(map(int, update["id"].split("-"))) for update in spared.updates]
    assert ids == sorted(set(ids))
    assert not spared.of_type("resync")
    master = psutil.Process(appliance.pid_of("app"))
    wait_until(lambda: len(master.children()) == 4)
    for client in clients:
        client.close()


def test_every_program_runs_and_nothing_else(appliance: Appliance) -> None:
    assert appliance.states() == dict.fromkeys(("app", "listener", "keeper", "postgres", "valkey", "demo"), "RUNNING")


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; a zombie, which only waits for its parent, has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def test_sigterm_ends_everything_with_exit_code_0_and_leaves_nothing(tmp_path: Path) -> None:
    with Appliance(tmp_path / "pod") as appliance:
        appliance.wait_until_ready()
        children = psutil.Process(appliance.pid).children(recursive=True)
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(appliance.port, MATCH, f"viewer{n}")) for n in range(32)]
            connection = stack.enter_context(closing(psycopg.connect(appliance.database_url, autocommit=True)))
            clients[-1].wait_for_updates(1)
            appliance.signal(signal.SIGTERM)
            wait_until(lambda: any(client.code for client in clients))
            # The listener ends after the workers, so that whoever is still connected hears of it.
            late = {"match_id": MATCH, "operation": "UPDATE", "data": "late"}
            connection.execute("SELECT pg_notify('match_change', %s)", [json.dumps(late)])
            wait_until(lambda: any(each["data"] == "late" for client in clients for each in client.updates), 8)
            assert appliance.exit_code(within=20) == 0
            assert {client.wait_until_closed() for client in clients} == {1012}
        assert [child for child in children if runs(child)] == []
        assert "CRIT" not in appliance.log
        assert "Traceback" not in appliance.log


@pytest.mark.long
def test_with_a_standby_clients_do_not_notice_a_restart_of_the_listener(tmp_path: Path) -> None:
    with Appliance(tmp_path / "pod", LISTENER_STANDBY="true") as appliance:
        appliance.wait_until_ready()
        assert appliance.states()["listener-standby"] == "RUNNING"
        wait_until(lambda: appliance.listening() == 2)
        wait_until(lambda: "aligned at" in appliance.log)
        with Client(appliance.port, MATCH, "viewer") as client:
            client.wait_for_updates(5)
            for program in ("listener", "listener-standby"):
                before = appliance.alignments()
                appliance.ctl("restart", program)
                wait_until(partial(appliance.has_aligned_since, before))
                client.wait_for_updates(len(client.updates) + 10)
            ids = [tuple(map(int, update["id"].split("-"))) for update in client.updates]
            assert ids == sorted(set(ids))
            assert len({epoch for epoch, _ in ids}) == 1
            assert not client.of_type("resync")
