"""`npm pack` beside notifymux.js makes a package that installs, imports and has types."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.npm import install_packages
from tests.support.process import ROOT

HERE = Path(__file__).parent
STATIC = ROOT / "app/web/static"
IMPORTS = """
import { connect } from "notifymux";
const connection = connect({ matches: [1, "final"], base: "http://127.0.0.1:9/" });
console.log(connection.matches.join(), connection.state.name);
connection.close();
"""
PROGRAM = """
import { connect, type MatchesConnection, type State } from "notifymux";

const one = connect({ match: 7, lastEventId: null });
const last: string | null = one.lastEventId;
const several: MatchesConnection = connect({ matches: [1, "final"], shareTabs: true, token: async () => "token" });
several.add(3);
several.remove("final");
several.on("initial-load", ({ recovered, data }) => console.log(recovered, data));
several.on("refused", ({ match_id, code }) => console.log(match_id, code));
several.on("match-update", ({ operation, channel }) => console.log(operation, channel));
several.on("*", (message) => console.log(message.type));
const remove: () => void = several.onState((state: State) => console.log(state.name, last));
remove();
several.renew().then(() => several.close());
"""
WRONG = [
    "connect({});",
    "connect({ match: 1, matches: [2] });",
    "connect({ match: 1 }).add(2);",
    "connect({ matches: 7 });",
    "connect({ matches: [7] }).on('refused', ({ kind }) => kind);",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the packed package is installed, and a TypeScript compiler."""
    folder = install_packages(HERE, tmp_path_factory.mktemp("package") / "project")
    packed = run(STATIC, "npm", "pack", "--json", "--pack-destination", str(folder))
    [package] = json.loads(packed.stdout)
    assert "notifymux/multiplexer.js" in [each["path"] for each in package["files"]]
    assert not [each["path"] for each in package["files"] if "demo" in each["path"] or "index" in each["path"]]
    install = ["npm", "install", "--offline", "--no-audit", "--no-fund", f"./{package['filename']}"]
    installed = run(folder, *install)
    assert installed.returncode == 0, installed.stderr
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=100)


def compile_program(project: Path, text: str) -> subprocess.CompletedProcess[str]:
    (project / "program.ts").write_text(text)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    return run(project, "node_modules/.bin/tsc", *options, "program.ts")


def test_the_installed_package_is_imported_in_node(project: Path) -> None:
    (project / "program.mjs").write_text(IMPORTS)
    result = run(project, "node", "program.mjs")
    assert result.stdout == "1,final connecting\n", result.stderr


def test_a_program_is_checked_against_the_declarations(project: Path) -> None:
    result = compile_program(project, PROGRAM)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("line", WRONG)
def test_the_declarations_refuse(project: Path, line: str) -> None:
    result = compile_program(project, f'import {{ connect }} from "notifymux";\n{line}\n')
    assert result.returncode != 0
    assert result.stdout.startswith("program.ts(2,"), result.stdout


def test_the_package_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = json.loads((STATIC / "package.json").read_text())
    assert (package["name"], package["version"]) == (project["name"], project["version"])
    assert package["license"] == project["license"]
