"""What README and docs name exists, and what they show without a server runs."""

import ast
import importlib.util
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from dataclasses import fields
from itertools import takewhile
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

import notifymux
from app.broadcast import messages
from app.broadcast.client import CloseCode
from app.core import libpq_environment
from app.core.config import Settings
from app.core.settings_types import Secret
from app.web.gunicorn_worker import MAX_MESSAGE_BYTES
from tests.support.documents import (
    CONTRIBUTING,
    DEPLOYED,
    DOCUMENTS,
    PROTOCOL,
    PYTHON,
    README,
    SETTINGS,
    block,
    blocks,
    flat,
    prose,
    section,
)
from tests.support.process import ROOT


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def settings_table() -> str:
    """The table in docs/settings.md, as the settings themselves have it."""
    rows = [
        f"| `{field.name.upper()}` | {_default(field.name, field.default)} | {field.metadata['about']} |"
        for field in fields(Settings)
    ]
    return "\n".join(["| variable | default | what |", "|---|---|---|", *rows])


def _default(field: str, value: object) -> str:
    match value:
        case _ if field == "pod_name":
            return "the host's name"
        case Secret():
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


def test_the_table_of_settings_has_the_name_default_and_description_of_every_setting() -> None:
    lines = prose(SETTINGS).splitlines()
    start = lines.index("| variable | default | what |")
    table = "\n".join(takewhile(bool, lines[start:]))
    assert table == settings_table()


def test_every_variable_that_a_document_names_is_a_setting() -> None:
    known = {field.name.upper() for field in fields(Settings)}
    known |= {"TEST_DATABASE_URL", "TEST_REDIS_URL", "CONTAINER_ENGINE"}
    known |= {"NOTIFY_CHANNEL", "CREATE_TRIGGER", "SQL_ASCII"}  # the first is Python's
    known |= libpq_environment.COUNTED | libpq_environment.IGNORED
    known |= {"DB_HOSTS", "DATABASE_URL", "REDIS_HOST"}  # for which the demo does not start
    for document in DOCUMENTS:
        named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", prose(document)))
        assert named <= known, name(document)


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = prose(document)
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(re.findall(r"^\[([\w-]+)\]: http", text, re.MULTILINE))
    for link in re.findall(r"\]\(([^)]+)\)", text):
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


def test_every_script_that_a_document_shows_is_executable() -> None:
    for document in DOCUMENTS:
        for script_name in re.findall(r"(?<![\w/])\./([\w-]+\.sh)", document.read_text(encoding="utf-8")):
            assert (ROOT / script_name).stat().st_mode & stat.S_IXUSR, script_name
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR


def test_every_program_in_a_supervisorctl_command_is_one_of_supervisords() -> None:
    programs = re.findall(r"^\[program:(\w+)\]$", (ROOT / "supervisord.conf").read_text(encoding="utf-8"), re.MULTILINE)
    named = [
        word
        for document in DOCUMENTS
        for words in re.findall(r"supervisorctl (?:restart|stop|start)((?: [a-z]+)+)", flat(document))
        for word in words.split()
    ]
    assert set(named) == set(programs) == {"app", "listener"}


def test_every_message_and_close_code_is_documented() -> None:
    protocol = PROTOCOL.read_text(encoding="utf-8")
    for channel, kind in messages.MESSAGE_TYPES.items():
        assert re.search(rf"^\| `{kind}` \|.*`{channel}`", protocol, re.MULTILINE), channel
    for code in (CloseCode.SLOW, CloseCode.REPLACED, CloseCode.SILENT):
        assert re.search(rf"^\| {code:d} \|", protocol, re.MULTILINE), code
    assert f"{MAX_MESSAGE_BYTES:,} bytes" in protocol


def test_every_module_in_a_python_command_can_be_run() -> None:
    for document in [*DOCUMENTS, *DEPLOYED]:
        for module in re.findall(r"python -m ([\w.]+)", document.read_text(encoding="utf-8")):
            spec = importlib.util.find_spec(module)
            assert spec, module
            assert not spec.submodule_search_locations or importlib.util.find_spec(f"{module}.__main__"), module


def definitions(path: Path) -> set[str]:
    """The classes and functions of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_the_four_modules_that_the_readme_points_to_define_the_classes_that_it_names() -> None:
    sentences = re.findall(r"^- (.+?)(?=^- |^$)", section(README, "How it is built"), re.MULTILINE | re.DOTALL)
    assert len(sentences) == 4
    for sentence in sentences:
        [path] = re.findall(r"\]\((\S+\.py)\)", sentence)
        classes = set(re.findall(r"`([A-Z]\w+)`", sentence))
        assert classes, sentence
        assert classes <= definitions(ROOT / path), path


def test_the_readmes_tree_has_every_package_of_the_three() -> None:
    [tree] = re.findall(r"^```\n(.*?)^```", section(README, "How it is built"), re.MULTILINE | re.DOTALL)
    shown: list[str] = []
    for indent, folder in re.findall(r"^( *)(\w+)/", tree, re.MULTILINE):
        parent = next(path for path in reversed(shown) if "/" not in path) if indent else ""
        shown.append(f"{parent}/{folder}" if indent else folder)
    packages = [path.parent for top in ("app", "listener", "notifymux") for path in (ROOT / top).glob("*/__init__.py")]
    assert sorted(shown) == sorted(["app", "listener", "notifymux", *(name(path) for path in packages)])


def test_the_python_page_imports_what_the_package_exports() -> None:
    names: dict[str, object] = {}
    exec(block(PYTHON, "python", "from notifymux import"), names)
    assert set(notifymux.__all__) == names.keys() - {"__builtins__"}


def test_the_command_that_replays_a_seed_runs() -> None:
    [command] = block(CONTRIBUTING, "sh", "World(").splitlines()
    python, *arguments = shlex.split(command)
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, timeout=60)


def test_the_workflow_runs_ci_on_every_python_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [text.rpartition(" ")[2] for text in project["classifiers"] if ":: 3." in text]
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == versions
    assert 'PYTHON="python${{ matrix.python }}"' in job["steps"][-1]["run"]
    assert job["steps"][-1]["run"].endswith(" .ci/run")


def test_the_variable_python_chooses_the_interpreter_of_a_new_environment(tmp_path: Path) -> None:
    chosen = tmp_path / "python-chosen"
    chosen.symlink_to(Path(sys.executable).resolve())
    found = subprocess.run(
        ["sh", "-c", ". tools/venv.sh; find_python"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": str(chosen)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == f"{chosen}\n"
