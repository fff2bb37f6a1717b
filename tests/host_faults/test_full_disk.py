"""A disk without room where the metrics are kept."""

from pathlib import Path

import psutil
import pytest

from tests.conftest import StartApp, StartListener
from tests.host_faults.conftest import StartWrappedApp, StartWrappedListener
from tests.support.numbered import MATCH, Numbered
from tests.support.process import Process
from tests.support.programs import App
from tests.support.waiting import wait_until
from tests.support.wrapped import with_mounts

pytestmark = pytest.mark.long

# In the program's own folder: a file system of its own, for itself alone.
_MOUNT = 'mkdir -p .run/metrics; mount -t tmpfs -o "size=$1" tmpfs .run/metrics'
_FILL = "head -c 100M /dev/zero >.run/metrics/filler 2>/dev/null || :"


def full() -> list[str]:
    return with_mounts(f"{_MOUNT}; {_FILL}", "64k")


def says_so_once(program: Process) -> None:
    said = [line for line in program.lines if "No space left" in line]
    assert len(said) == 1, program.log
    assert "metrics" in said[0], "it names the disk by what is kept there"


def test_a_listener_that_starts_on_a_full_disk_runs_without_metrics_and_says_so_once(
    settings: dict[str, str], events: Numbered, start_wrapped_listener: StartWrappedListener, start_app: StartApp
) -> None:
    listener = start_wrapped_listener(full(), settings)
    wait_until(lambda: "epoch" in listener.log or not listener.running, 10)
    assert listener.running, f"exit code {listener.exit_code()}:\n{listener.log}"
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
    says_so_once(listener)


def test_workers_that_start_on_a_full_disk_serve_their_own_metrics_and_it_is_said_once(
    settings: dict[str, str], events: Numbered, start_listener: StartListener, start_wrapped_app: StartWrappedApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_wrapped_app(full(), settings, workers=2)
    wait_until(lambda: app.get("/readyz")[0] == 200 or "SIGBUS" in app.log, 10, lambda: app.log)
    assert "SIGBUS" not in app.log
    before = worker_pids(app, 2)
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        code, metrics = app.get("/metrics")
        assert code == 200
        assert b"notifymux_worker_events_total" in metrics
    assert {child.pid for child in psutil.Process(app.pid).children()} == before, app.log
    says_so_once(app)


def test_a_disk_that_becomes_full_later_harms_nobody(
    settings: dict[str, str],
    events: Numbered,
    start_wrapped_listener: StartWrappedListener,
    start_wrapped_app: StartWrappedApp,
) -> None:
    roomy = with_mounts(_MOUNT, "32m")
    listener = start_wrapped_listener(roomy, settings).wait_until_aligned()
    app = start_wrapped_app(roomy, settings, workers=2).wait_until_ready()
    before = worker_pids(app, 2)
    for program in (listener, app):  # in the program's own mount namespace
        filler = Path(f"/proc/{program.pid}/root/{program_folder(program.pid)}/.run/metrics/filler")
        fill(filler)
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        assert app.get("/metrics")[0] == 200
    assert listener.running
    assert {child.pid for child in psutil.Process(app.pid).children()} == before, app.log


def worker_pids(app: App, workers: int) -> set[int]:
    """The workers' pids; the first may be ready before the last one is started."""
    master = psutil.Process(app.pid)
    wait_until(lambda: len(master.children()) == workers)
    return {child.pid for child in master.children()}


def program_folder(pid: int) -> str:
    return str(psutil.Process(pid).cwd())


def fill(path: Path) -> None:
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
    except OSError:
        pass  # no space left
