"""Several matches on one connection of notifymux.js, against a model server that cuts at every message."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import ROOT

HERE = Path(__file__).parent
STATIC = ROOT / "app/web/static"
SCHEDULES = 40

# What each line of the module is there for: without it, a schedule fails.
MUTATIONS = {
    "a lost socket does not end what is heard on": ("matches_connection", "heard.isHeardOn = false;", ";"),
    "the position moves while an answer is due": ("multiplexer", "subscription.isDue || recovered", "recovered"),
    "what was sent before `unsubscribed` is heard": ("multiplexer", "if (this.#fences.has(key))", "if (false)"),
    "a fence outlives its socket": ("multiplexer", "this.#fences.clear();", ""),
    "a second request is forgotten": ("multiplexer", "known.isBehind = true", "known.isBehind = false"),
    "another connection's snapshot is heard": ("matches_connection", "(recovered || isOthers)", "(recovered)"),
    "another connection's start is hidden": (
        "matches_connection",
        "if (recovered && !isKnown && !isOthers) return;",
        "if ((recovered && !isKnown) || isOthers) return;",
    ),
    "a recovery from a later id is heard": (
        "matches_connection",
        "if (recovered && !isKnown && !isOthers) return;",
        "",
    ),
    "repetitions are heard": ("matches_connection", "!isAfter(id, heard.position)) return;", "false) return;"),
    "updates are heard before the start": ("matches_connection", "else if (heard.isHeardOn)", "else"),
    "another connection's refusal ends a match": ("multiplexer", "!isStarted || !OF_A_REQUEST.includes(code)", "true"),
    "a refused match is kept": ("multiplexer", "!isStarted || !OF_A_REQUEST", "!OF_A_REQUEST"),
    "a tab hears on when another one leads": ("tabs", "this.#callbacks.onLost(); // what", "// what"),
    "a tab hears one that leads no longer": ("tabs", "if (leader !== this.#leader) return;", ""),
    "tabs are not told of a lost socket": ("leading_tab", 'tell({ type: "lost", match })', "undefined"),
    "a stream goes on with other matches": ("multiplexer", "this.#isStream && this.#isOutdated", "false"),
}


def run(module: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None:
        pytest.fail("there is no Node.js: install the package nodejs")
    command = ["node", str(HERE / "multiplexing.mjs"), str(module), str(SCHEDULES)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)


def test_no_connection_loses_repeats_or_reorders_an_event_wherever_the_socket_is_cut() -> None:
    result = run(STATIC / "notifymux.js")
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    assert counts["schedules"] == SCHEDULES
    assert counts["cuts"] > 1_000
    assert counts["messages"] > 10 * counts["cuts"]


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_schedule_finds_it_if(mutation: str, tmp_path: Path) -> None:
    name, line, other = MUTATIONS[mutation]
    shutil.copy(STATIC / "notifymux.js", tmp_path)
    shutil.copytree(STATIC / "notifymux", tmp_path / "notifymux")
    path = tmp_path / "notifymux" / f"{name}.js"
    text = path.read_text()
    assert text.count(line) == 1
    path.write_text(text.replace(line, other))
    result = run(tmp_path / "notifymux.js")
    assert result.returncode == 1, f"no schedule failed: {result.stdout}"
    assert "seed" in result.stderr
