"""What the documents show is run, and what they name exists."""

import importlib.util
import json
import os
import re
import shlex
import stat
import sys
import uuid
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from app.broadcast.client import CloseCode
from app.broadcast.messages import MESSAGE_TYPES
from app.core.config import Settings, load_settings
from app.main import compose
from app.web.gunicorn_worker import MAX_MESSAGE_BYTES
from notifymux.event import encode
from notifymux.redis_notifier import NOTIFY_CHANNEL
from tests.conftest import RedisPlace, StartApp, StartListener, Verify
from tests.support.documents import DOCUMENTS, OPERATIONS, PROTOCOL, README, block, blocks, prose
from tests.support.process import ROOT, Process
from tests.support.servers import Servers, database_settings
from tests.support.waiting import wait_until

DEPLOYED = sorted((ROOT / "docs/deploy").glob("*.yaml"))
IMAGE = re.compile(r"notifymux(:.+)?")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# What is shown, run.


def script(servers: Servers, folder: Path, code: str) -> Process:
    """A Python block, with nothing but its servers' addresses changed."""
    changed = code.replace("redis://localhost:6379", servers.embedded.redis_url)
    changed = changed.replace("postgresql://postgres@localhost:5432/postgres", servers.embedded.database_url)
    path = folder / "script.py"
    path.write_text(changed, encoding="utf-8")
    return Process([sys.executable, str(path)], folder, {})


def test_the_notifiers_block_hears_what_is_published(servers: Servers, tmp_path: Path) -> None:
    with (
        RedisPlace(servers.embedded.redis_url, "").client() as client,
        script(servers, tmp_path, block(README, "python", "init_redis_notifier")) as process,
    ):
        event = encode("player_match_change", b'{"match_id": 123, "by": "test"}', 0.0)
        wait_until(lambda: client.publish(NOTIFY_CHANNEL, event) or not process.running, 20, "subscribed")
        process.wait_for_log("player_match_change {'match_id': 123, 'by': 'test'}")


def test_the_managers_block_connects_and_ends(servers: Servers, tmp_path: Path, start_listener: StartListener) -> None:
    embedded = servers.embedded
    start_listener(database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url})
    with script(servers, tmp_path, block(README, "python", "MatchDataWebSocketManager")) as process:
        assert process.exit_code(20) == 0, process.log
        assert process.lines[-1] == "connected: True"


def test_the_commands_that_verify_show_one_row_and_the_events(
    servers: Servers, tmp_path: Path, start_listener: StartListener
) -> None:
    embedded = servers.embedded
    start_listener(database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url}).wait_until_aligned()
    query = block(README, "sql", "pg_stat_activity")
    with closing(psycopg.connect(embedded.database_url, autocommit=True)) as connection:
        [(_, state, shown)] = connection.execute(query.encode()).fetchall()
    assert state in {"idle", "active"}
    assert shown.startswith("LISTEN")

    *command, channel = shlex.split(block(README, "sh", "SUBSCRIBE"))
    assert command == ["redis-cli", "SUBSCRIBE"]
    with RedisPlace(embedded.redis_url, "").client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel)
        message = wait_until(lambda: pubsub.get_message(timeout=1))
    assert set(json.loads(message["data"])) >= {"id", "channel", "payload", "at"}


@pytest.fixture
def table(connection: psycopg.Connection) -> psycopg.Connection:
    """A session that LISTENs, in a database with a table under the README's trigger."""
    connection.execute("CREATE TABLE scoreboard (id int PRIMARY KEY, match_id int, home_score int, notes text)")
    connection.execute(block(README, "sql", "CREATE OR REPLACE TRIGGER").encode())
    connection.execute("INSERT INTO scoreboard VALUES (7, 1, 0, '')")
    connection.execute("LISTEN scoreboard_change")
    return connection


def heard(session: psycopg.Connection) -> list[Any]:
    session.execute("SELECT 1")  # a session's own notifications come before the answer to its next query
    return [json.loads(note.payload) for note in session.notifies(timeout=0)]


def test_the_trigger_notifies_of_a_row(table: psycopg.Connection) -> None:
    table.execute("UPDATE scoreboard SET home_score = 3")
    row = {"id": 7, "match_id": 1, "home_score": 3, "notes": ""}
    told = {"table": "scoreboard", "operation": "UPDATE", "match_id": 1, "new_id": 7, "old_id": 7}
    assert heard(table) == [told | {"data": row}]


def test_the_trigger_announces_a_row_that_is_too_large_without_its_data(table: psycopg.Connection) -> None:
    table.execute("UPDATE scoreboard SET notes = repeat('ü', 4000)")
    [told] = heard(table)
    assert (told["operation"], told["match_id"], told["new_id"], told["data"]) == ("UPDATE", 1, 7, None)
    assert table.execute("SELECT octet_length(notes) FROM scoreboard").fetchone() == (8000,)


def test_the_trigger_is_the_demos() -> None:
    shown = block(README, "sql", "CREATE OR REPLACE TRIGGER")
    function, _, _ = shown.partition("CREATE OR REPLACE TRIGGER")
    assert function in (ROOT / "app/appliance/demo/schema.sql").read_text(encoding="utf-8")


class Granted(NamedTuple):
    """Settings with which a program has the rights of docs/operations.md and no others."""

    listener: dict[str, str]
    app: dict[str, str]


@pytest.fixture
def granted(
    database: str, connection: psycopg.Connection, redis_place: RedisPlace, settings: dict[str, str]
) -> Iterator[Granted]:
    own, dbname = f"notifymux_{uuid.uuid4().hex[:12]}", conninfo_to_dict(database)["dbname"]
    connection.execute(f"REVOKE ALL ON DATABASE {dbname} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC".encode())
    role = block(OPERATIONS, "sql", "CREATE ROLE").replace("notifymux", own).replace("mydb", str(dbname))
    connection.execute(role.encode())
    [lines] = [text.splitlines() for text in blocks(OPERATIONS, "") if "ACL SETUSER" in text]
    with closing(redis_place.client()) as client:
        for line in lines:
            acl = line.replace("pg_notify", redis_place.namespace).replace("notifymux-", f"{own}-")
            client.execute_command(*shlex.split(acl))  # type: ignore[no-untyped-call]
        settings |= database_settings(make_conninfo(database, user=own, password="choose-one"))
        try:
            yield Granted(
                settings | {"REDIS_URL": as_user(redis_place.url, f"{own}-listener", "listener-password")},
                settings | {"REDIS_URL": as_user(redis_place.url, f"{own}-worker", "worker-password")},
            )
        finally:
            client.acl_deluser(f"{own}-listener", f"{own}-worker")
            connection.execute(f"DROP OWNED BY {own}; DROP ROLE {own}".encode())


def as_user(url: str, user: str, password: str) -> str:
    host = url.partition("://")[2].rpartition("@")[2]
    return f"redis://{user}:{password}@{host}"


def test_the_rights_that_the_operations_page_grants_are_enough(
    granted: Granted, connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(granted.listener).wait_until_aligned().stop()
    start_listener(granted.listener).wait_until_aligned()
    with start_app(granted.app).wait_until_ready().client(1) as client:
        client.wait_for_initial_load()
        connection.execute("NOTIFY match_change, '{\"match_id\": 1}'")
        assert client.wait_for_updates(1)[0]["channel"] == "match_change"


def test_verify_needs_no_right_but_the_listeners_and_says_which_would_show_more(
    granted: Granted, redis_place: RedisPlace, start_listener: StartListener, verify: Verify
) -> None:
    settings = granted.listener | {"USE_REDIS_NOTIFIER": "false"}
    start_listener(settings).wait_until_aligned()
    verified = verify(settings)
    assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
    assert "not shown to this role (pg_monitor" in verified.text("LISTEN sessions")
    rights = re.findall(r"\+\S+", verified.remedy("Redis INFO"))
    assert f"`{' '.join(rights)}`" in _flat(OPERATIONS)
    with closing(redis_place.client()) as client:
        user = str(urlsplit(settings["REDIS_URL"]).username)
        client.execute_command("ACL", "SETUSER", user, *rights)  # type: ignore[no-untyped-call]
    verified = verify(settings)
    assert {"Redis version", "Redis role", "Redis memory", "Redis persistence"} < set(verified.with_status("ok"))


def test_the_example_of_a_dotenv_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = blocks(README, "ini")
    (tmp_path / ".env").write_text(example, encoding="utf-8")
    settings = loaded(tmp_path, monkeypatch, {})
    given = dict(line.split("=", 1) for line in example.splitlines())  # as `docker run --env-file` reads it
    assert settings == loaded(tmp_path / "elsewhere", monkeypatch, given)
    assert {variable.lower() for variable in given} == settings.model_fields_set


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    """The settings of a program that is started in a folder."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    for variable in list(os.environ):
        if variable.lower() in Settings.model_fields:
            monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return load_settings()


# What is named, looked up.


def settings_table() -> str:
    """The README's table, as the settings themselves have it."""
    rows = ["| variable | default | what |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        rows.append(f"| `{field.upper()}` | {_default(field, info.default)} | {info.description} |")
    return "\n".join(rows)


def _default(field: str, value: object) -> str:
    assert value is not PydanticUndefined
    match value:
        case _ if field == "pod_name":
            return "the host's name"
        case SecretStr():
            text = value.get_secret_value()
        case None | "":
            return ""
        case bool():
            text = str(value).lower()
        case tuple():
            return ", ".join(f"`{part}`" for part in value)
        case float():
            text = f"{value:g}"
        case _:
            text = str(value)
    return f"`{text}`"


def test_the_table_of_settings_has_every_setting_in_its_own_words() -> None:
    lines = prose(README).splitlines()
    start = lines.index("| variable | default | what |")
    table = "\n".join(takewhile(bool, lines[start:]))
    assert table == settings_table()


def test_every_variable_that_is_written_about_is_a_setting() -> None:
    known = {field.upper() for field in Settings.model_fields} | {"TEST_DATABASE_URL", "TEST_REDIS_URL"}
    known |= {"NOTIFY_CHANNEL", "CREATE_TRIGGER"}  # the first is Python's
    for document in DOCUMENTS:
        named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", prose(document)))
        assert named <= known, name(document)


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(document)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_every_example_in_json_is_json() -> None:
    for document in DOCUMENTS:
        for text in blocks(document, "json"):
            assert isinstance(json.loads(text), dict), text


def test_every_script_that_is_shown_can_be_started() -> None:
    for document in DOCUMENTS:
        for script_name in re.findall(r"(?<![\w/])\./([\w-]+\.sh)", document.read_text(encoding="utf-8")):
            assert (ROOT / script_name).stat().st_mode & stat.S_IXUSR, script_name
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR


def programs() -> dict[str, str]:
    """What supervisord runs, by name."""
    parser = RawConfigParser()
    parser.read(ROOT / "supervisord.conf", encoding="utf-8")
    return {
        section.partition(":")[2]: parser[section]["command"]
        for section in parser.sections()
        if section.startswith("program:")
    }


def _flat(document: Path) -> str:
    return " ".join(document.read_text(encoding="utf-8").split())


def test_every_program_that_supervisorctl_is_asked_for_is_one_of_supervisords() -> None:
    asked = [
        word
        for document in DOCUMENTS
        for words in re.findall(r"supervisorctl (?:restart|stop|start)((?: [a-z]+)+)", _flat(document))
        for word in words.split()
    ]
    assert set(asked) == set(programs()) == {"app", "listener"}


def test_every_message_and_close_code_is_documented() -> None:
    protocol = PROTOCOL.read_text(encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    for channel, kind in MESSAGE_TYPES.items():
        assert f"`{kind}`" in readme
        assert re.search(rf"^\| `{kind}` \|.*`{channel}`", protocol, re.MULTILINE), channel
    for code in (CloseCode.SLOW, CloseCode.REPLACED, CloseCode.SILENT):
        assert re.search(rf"^\| {code} \|", protocol, re.MULTILINE), code
    assert f"{MAX_MESSAGE_BYTES:,} bytes" in protocol


# The files for deployment.


class Container(NamedTuple):
    """One container of our image: a part of a file in docs/deploy."""

    file: Path
    environment: dict[str, str]
    command: list[str]
    ports: list[int]
    paths: list[str]
    secrets: set[str]  # the paths under which they stand in it


def containers() -> list[Container]:
    found = [container for path in DEPLOYED for container in (*_composed(path), *_in_pods(path))]
    assert {container.file for container in found} == set(DEPLOYED)
    return found


def _documents(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def _composed(path: Path) -> Iterator[Container]:
    for document in _documents(path):
        for service in document.get("services", {}).values():
            if IMAGE.fullmatch(service["image"]):
                assert (path.parent / service["build"] / "Dockerfile").exists()
                assert set(service["secrets"]) <= set(document["secrets"])
                ports = [int(port.rpartition(":")[2]) for port in service["ports"]]
                secrets = {f"/run/secrets/{secret}" for secret in service["secrets"]}
                yield Container(path, service["environment"], [], ports, [], secrets)


def _in_pods(path: Path) -> Iterator[Container]:
    documents = _documents(path)
    keys = {
        (document["metadata"]["name"], key)
        for document in documents
        if document.get("kind") == "Secret"
        for key in document["stringData"]
    }
    for document in documents:
        if document.get("kind") != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert IMAGE.fullmatch(container["image"])
            probes = [
                container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe") if probe in container
            ]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            yield Container(
                path,
                {variable["name"]: variable["value"] for variable in container["env"]},
                container.get("args", []),
                [ports[probe["port"]] for probe in probes],
                [probe["path"] for probe in probes],
                {f"{mounts[volume]}/{key}" for volume, secret in volumes.items() for of, key in keys if of == secret},
            )


@pytest.mark.parametrize("container", containers(), ids=lambda container: name(container.file))
def test_a_deployed_containers_settings_are_accepted(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(container.environment)
    for variable, value in environment.items():
        assert isinstance(value, str), variable
        if variable.endswith("_FILE"):
            assert value in container.secrets
            secret = tmp_path / variable
            secret.write_text("redis://redis:6379", encoding="utf-8")
            environment[variable] = str(secret)
    settings = loaded(tmp_path, monkeypatch, environment)
    given = {field.removesuffix("_file") for field in settings.model_fields_set}
    assert given == {variable.lower().removesuffix("_file") for variable in environment}


@pytest.mark.parametrize("container", containers(), ids=lambda container: name(container.file))
def test_a_deployed_containers_ports_paths_and_commands_are_the_programs_own(container: Container) -> None:
    assert set(container.ports) <= {Settings.model_fields["port"].default}
    assert set(container.paths) <= {
        getattr(route, "path", "") for route in compose(Settings.model_construct(db_host="h")).routes
    }
    if container.command:
        assert any(command.endswith(shlex.join(container.command)) for command in programs().values())


def test_a_deployed_container_runs_as_the_images_user() -> None:
    [user] = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for document in (document for path in DEPLOYED for document in _documents(path)):
        if document.get("kind") == "Deployment":
            security = document["spec"]["template"]["spec"]["securityContext"]
            assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}


def test_every_module_that_is_started_exists() -> None:
    for document in [*DOCUMENTS, *DEPLOYED]:
        for module in re.findall(r"python -m ([\w.]+)", document.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(f"{module}.__main__"), module
