"""The embedded servers: their data survives a kill, they ask for the password, and are not root."""

import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from tests.support.process import Process
from tests.support.servers import Servers
from tests.support.waiting import wait_until


def kill(server: Process | None) -> None:
    assert server
    with server:
        server.kill()


def command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_text(errors="replace"))
    return "\n".join(lines)


def open_files(pid: int) -> set[str]:
    files = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            files.add(str(link.readlink()))
    return files


def gone(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


@pytest.mark.long
def test_a_killed_postgres_returns_with_its_data_and_on_its_port(servers: Servers) -> None:
    for number in range(1, 4):
        with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as session:
            session.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            session.execute("INSERT INTO kept VALUES (1)")
            assert session.execute("SELECT count(*) FROM kept").fetchone() == (number,)
            kill(servers.postgres)
            servers.start_postgres()


def test_a_stale_pid_file_that_names_another_process_does_not_keep_postgres_down(servers: Servers) -> None:
    kill(servers.postgres)
    pid_file = servers.embedded.data / "postgres" / "postmaster.pid"
    pid, rest = pid_file.read_text().split("\n", 1)
    assert gone(int(pid))
    assert servers.redis  # of the same account, as all are in a container
    pid_file.write_text(f"{servers.redis.pid}\n{rest}")
    servers.start_postgres()


def test_a_killed_valkey_returns_with_its_data_and_on_its_port(servers: Servers) -> None:
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.set("kept", "1")
        kill(servers.redis)
        servers.start_redis()
        assert client.get("kept") == b"1"


def test_a_second_server_waits_for_the_folder_of_the_first(servers: Servers) -> None:
    second = Process([sys.executable, "-m", "app.appliance", "valkey"], servers.folder, {})
    try:
        lock = str(servers.embedded.data / "valkey.lock")
        wait_until(lambda: lock in open_files(second.pid))
        assert second.lines == []
        kill(servers.redis)
        second.wait_for_log("Reading config")
    finally:
        second.end()


def test_both_servers_need_the_password_and_no_command_line_contains_it(servers: Servers) -> None:
    embedded = servers.embedded
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(embedded.database_url, password="guess"))
    with socket.create_connection(("127.0.0.1", embedded.valkey_port)) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100).startswith(b"-NOAUTH")
    assert embedded.password not in command_lines()


def test_neither_server_is_root(servers: Servers) -> None:
    for process in (servers.postgres, servers.redis):
        assert process
        assert Path(f"/proc/{process.pid}").stat().st_uid != 0


def test_a_program_run_by_parent_death_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.appliance.supervision.parent_death", "sleep", "600"]
    script = f"import subprocess; print(subprocess.Popen({command!r}).pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        wait_until(lambda: "sleep" in Path(f"/proc/{child}/comm").read_text())
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: gone(child))
