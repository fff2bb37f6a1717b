"""Standard output that nobody reads: a log collector that hangs, a terminal that is paused. Nothing waits for it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.appliance.test_appliance import MATCH as DEMO_MATCH
from tests.appliance.test_appliance import Appliance, runs
from tests.conftest import RedisPlace
from tests.support.numbered import MATCH, Numbered
from tests.support.process import ROOT, environment
from tests.support.programs import App, Client, Listener
from tests.support.proxy import Proxy
from tests.support.servers import redis_url_with_port
from tests.support.unread_output import UnreadOutput
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long


class UnreadListener(UnreadOutput, Listener):
    pass


class UnreadApp(UnreadOutput, App):
    pass


class UnreadAppliance(UnreadOutput, Appliance):
    pass


@pytest.fixture
def proxy(redis_place: RedisPlace) -> Iterator[Proxy]:
    """The way to Redis."""
    with Proxy(int(urlsplit(redis_place.url).port or 6379)) as proxy:
        yield proxy


@pytest.fixture
def settings(settings: dict[str, str], proxy: Proxy) -> dict[str, str]:
    return settings | {"REDIS_URL": redis_url_with_port(settings["REDIS_URL"], proxy.port)}


@pytest.fixture
def listener(settings: dict[str, str], tmp_path: Path) -> Iterator[UnreadListener]:
    with UnreadListener(tmp_path, settings) as listener:
        listener.wait_until_aligned()
        yield listener


@pytest.fixture
def app(settings: dict[str, str], listener: UnreadListener, tmp_path: Path) -> Iterator[UnreadApp]:
    folder = tmp_path / "remote"  # in a pod without a listener, so that no feed stands in for Redis
    folder.mkdir()
    with UnreadApp(folder, settings, workers=2) as app:
        app.wait_until_ready()
        yield app


def workers(app: App) -> list[psutil.Process]:
    return list(psutil.Process(app.pid).children())


def test_events_flow_on_although_every_program_has_lines_that_nobody_reads(
    listener: UnreadListener, app: UnreadApp, proxy: Proxy, events: Numbered
) -> None:
    clients = app.client_of_each_worker(MATCH, 2).values()
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client).wait_for_initial_load()
        listener.stop_reading()
        app.stop_reading()
        proxy.cut()  # which each says, and that Redis is back
        events.commit(20)
        wait_until(lambda: app.get("/readyz")[0] == 503)
        proxy.resume()
        events.commit(20)
        for client in clients:
            events.heard_by(client)
        app.wait_until_ready()


def test_what_could_not_be_written_is_said_when_somebody_reads_again(
    listener: UnreadListener, app: UnreadApp, proxy: Proxy
) -> None:
    """Each line, or, where they were too many to be kept, how many there were."""
    for program in (listener, app):
        program.stop_reading()
    proxy.cut()
    # Twenty connections reach both workers, which find out each on its own.
    wait_until(lambda: {app.get("/readyz")[0] for _ in range(20)} == {503})
    hold_for(2, lambda: app.get("/readyz")[0] == 503)  # so that a heartbeat of the listener falls into it
    proxy.resume()
    app.wait_until_ready()
    for program in (listener, app):
        program.read_again()
        wait_until(
            lambda program=program: "Redis is back" in program.log or re.search(r"\d+ lines", program.log),  # type: ignore[misc]
            10,
            lambda program=program: program.log,  # type: ignore[misc]
        )


def test_gunicorns_master_replaces_a_worker_while_nobody_reads(app: UnreadApp) -> None:
    wait_until(lambda: len(workers(app)) == 2)
    before = workers(app)
    app.stop_reading()
    os.kill(before[0].pid, signal.SIGKILL)
    [new] = wait_until(lambda: [worker for worker in workers(app) if worker not in before], what="a new worker")
    wait_until(lambda: new.pid in app.client_of_each_worker(MATCH, 2), 20, "the new one serves")


@pytest.mark.parametrize("program", ["listener", "app"])
def test_a_program_ends_by_sigterm_while_nobody_reads(
    request: pytest.FixtureRequest, listener: UnreadListener, app: UnreadApp, program: str
) -> None:
    unread: UnreadOutput = request.getfixturevalue(program)
    unread.stop_reading()
    unread.signal(signal.SIGTERM)
    assert unread.exit_code(within=6) == 0  # supervisord waits as long


def test_a_listener_starts_although_nobody_reads(
    settings: dict[str, str], tmp_path: Path, connection: psycopg.Connection
) -> None:
    with UnreadListener(tmp_path, settings) as listener:
        listener.stop_reading()  # long before it has a line
        query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        wait_until(lambda: connection.execute(query).fetchone(), 10, "it LISTENs")


# The whole, by ./entrypoint.sh under supervisord.


def talker(lines: int) -> str:
    """A program of the appliance's own kind that says a lot and then stays."""
    conf = (ROOT / "supervisord.conf").read_text()
    section = re.search(r"\[program:listener\]\n(?:.+\n)+", conf)
    assert section
    says = (
        f"import signal, sys; [print('line', n, 'x' * 100, file=sys.stderr) for n in range({lines})];"
        " open('talked', 'w').close(); signal.pause()"
    )
    text = section.group().replace("listener", "talker")
    return "\n" + re.sub(r"command=.*", lambda _: f'command=python -c "{says}"\nautostart=false', text)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnreadAppliance]:
    with UnreadAppliance(tmp_path_factory.mktemp("unread") / "pod", talker(100_000)) as appliance:
        appliance.wait_until_ready()
        yield appliance


@pytest.fixture
def unread(appliance: UnreadAppliance) -> Iterator[UnreadAppliance]:
    appliance.stop_reading()
    yield appliance
    appliance.read_again()


def supervisorctl(appliance: UnreadAppliance, *arguments: str) -> str:
    """What it answers, within seconds or not at all."""
    command, made = ["supervisorctl", *arguments], environment(appliance.settings)
    done = subprocess.run(
        command, cwd=appliance.folder, env=made, capture_output=True, text=True, check=False, timeout=10
    )
    return done.stdout


def pids(appliance: UnreadAppliance) -> dict[str, int]:
    """The programs that run."""
    lines = supervisorctl(appliance, "status").splitlines()
    return {line.split()[0]: int(pid[1]) for line in lines if (pid := re.search(r"pid (\d+)", line))}


def test_the_appliance_replaces_what_dies_and_serves_on_while_nobody_reads(unread: UnreadAppliance) -> None:
    with Client(unread.port, DEMO_MATCH, "viewer") as client:
        client.wait_for_initial_load()
        before = pids(unread)
        worker = next(child.pid for child in psutil.Process(before["app"]).children() if child.pid != client.worker)
        for pid in (before["listener"], worker):
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: pids(unread).get("listener", 0) not in (0, before["listener"]), 20, "the listener is replaced"
        )
        wait_until(lambda: len(psutil.Process(before["app"]).children()) == 4, 20, "the worker is replaced")
        wait_until(lambda: client.of_type("resync"), 20, "the new listener counts")
        seen = len(client.updates)
        client.wait_for_updates(seen + 20)


def test_a_program_that_says_more_than_is_kept_is_not_held_up_and_how_much_was_dropped_is_said(
    unread: UnreadAppliance,
) -> None:
    supervisorctl(unread, "start", "talker")
    with Client(unread.port, DEMO_MATCH, "viewer") as client:
        wait_until((unread.folder / "talked").exists, 30, "it has said all")
        client.wait_for_updates(20)
    unread.read_again()
    wait_until(lambda: "line 0 xx" in unread.log, 10, "the first lines were kept")
    wait_until(lambda: re.search(r"\d+ (lines|bytes)", unread.log), 10, lambda: unread.log[-1000:])


def test_the_appliance_ends_by_sigterm_while_nobody_reads(unread: UnreadAppliance) -> None:
    """The last of those that share it."""
    children = psutil.Process(unread.pid).children(recursive=True)
    assert unread.stop(within=10) == 0  # Docker waits as long
    assert [child for child in children if runs(child)] == []
