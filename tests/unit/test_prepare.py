"""`python -m app.appliance prepare`: what it writes, and which starts it refuses with one line."""

import configparser
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.support.process import environment
from tests.support.servers import free_port


def prepare(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    served = {"HOST": "127.0.0.1", "PORT": str(free_port())}
    return subprocess.run(
        [sys.executable, "-m", "app.appliance", "prepare"],
        cwd=folder,
        env=environment(served | settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refused start prints."""
    assert result.returncode == 2, result
    assert result.stderr.startswith("notifymux: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def programs(folder: Path) -> list[str]:
    parser = configparser.RawConfigParser()
    assert parser.read(folder / ".run" / "programs.conf")
    return parser.sections()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder prepared for the embedded servers."""
    folder = tmp_path_factory.mktemp("embedded")
    assert prepare(folder).returncode == 0
    return folder


def test_without_servers_set_the_embedded_programs_are_written(embedded: Path) -> None:
    assert programs(embedded) == ["program:postgres", "program:valkey", "program:demo"]


def test_the_embedded_settings_are_complete_and_lead_to_loopback(embedded: Path) -> None:
    values = dotenv_values(embedded / ".run" / "embedded.env", interpolate=False)
    ports = json.loads((embedded / "data" / "ports.json").read_text())
    assert values["DB_HOST"] == "127.0.0.1"
    assert values["DB_PORT"] == str(ports["postgres"])
    assert values["REDIS_URL"] == f"redis://:{values['DB_PASSWORD']}@127.0.0.1:{ports['valkey']}"
    assert values["USE_REDIS_NOTIFIER"] == "true"
    assert "%(match_id)s" in (values["SNAPSHOT_QUERY"] or "")


def test_files_with_the_password_are_readable_by_their_owner_only(embedded: Path) -> None:
    assert mode(embedded / ".run" / "embedded.env") == 0o600
    assert mode(embedded / "data" / "password") == 0o600
    assert mode(embedded / "data" / "postgres") == 0o700
    assert mode(embedded / "data" / "valkey") == 0o700
    assert mode(embedded / ".run") == 0o700


def test_a_second_start_keeps_ports_password_and_data_and_logs_that_it_is_a_demo(embedded: Path) -> None:
    environment = (embedded / ".run" / "embedded.env").read_text()
    system = (embedded / "data" / "postgres" / "global" / "pg_control").read_bytes()
    result = prepare(embedded)
    assert result.stdout.count("EMBEDDED DEMO") == 2
    assert (embedded / "data" / "password").read_text() not in result.stdout + result.stderr
    assert (embedded / ".run" / "embedded.env").read_text() == environment
    assert (embedded / "data" / "postgres" / "global" / "pg_control").read_bytes() == system


def test_a_port_that_is_taken_is_replaced(embedded: Path) -> None:
    before = json.loads((embedded / "data" / "ports.json").read_text())
    with socket.create_server(("127.0.0.1", before["postgres"])):
        assert prepare(embedded).returncode == 0
    after = json.loads((embedded / "data" / "ports.json").read_text())
    assert after["postgres"] != before["postgres"]
    assert after["valkey"] == before["valkey"]


@pytest.mark.parametrize("given", [{"DB_HOST": "db"}, {"REDIS_URL": "redis://cache"}])
def test_with_a_server_set_nothing_is_embedded(tmp_path: Path, given: dict[str, str]) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "embedded.env").write_text("DB_HOST=127.0.0.1\n")
    assert prepare(tmp_path, **given).returncode == 0
    assert programs(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / ".run").iterdir()) == ["log", "programs.conf", "pulse"]
    assert not (tmp_path / "data").exists()


def test_servers_may_be_set_in_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DB_HOST=db\n")
    assert prepare(tmp_path).returncode == 0
    assert programs(tmp_path) == []


def test_a_wrong_setting_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    assert "WEB_CONCURRENCY='many'" in refusal(prepare(tmp_path, WEB_CONCURRENCY="many"))
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"PORT={port}" in refusal(prepare(tmp_path, PORT=str(port)))


def test_a_database_user_without_a_host_does_not_start_the_demo(tmp_path: Path) -> None:
    assert "DB_USER given without DB_HOST" in refusal(prepare(tmp_path, DB_USER="app"))


def test_a_second_appliance_in_the_same_folder_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "embedded.env").write_text("DB_HOST=127.0.0.1\n")
    path = tmp_path / ".run" / "supervisor.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert "already running" in refusal(prepare(tmp_path))
    assert (tmp_path / ".run" / "embedded.env").exists()


def test_a_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    assert "socket" in refusal(prepare(deep))


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "DATA_DIR='file/data'" in refusal(prepare(tmp_path, DATA_DIR="file/data"))


def test_data_without_its_password_is_refused(tmp_path: Path, template: Path) -> None:
    subprocess.run(["cp", "-a", str(template / "data"), str(tmp_path / "data")], check=True)
    (tmp_path / "data" / "password").unlink()
    assert "password is missing" in refusal(prepare(tmp_path))
