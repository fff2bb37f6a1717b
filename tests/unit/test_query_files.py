"""SQL files in QUERIES_DIR: which are accepted, and what is said of the others."""

from pathlib import Path

import pytest

from app.core.claims import ClaimNames
from app.core.config import Settings, load_queries
from app.core.query_files import NO_QUERIES, parse_query, read_queries
from app.core.settings_sources import SettingsError
from app.core.settings_types import Secret

CHANNELS = ("match_change", "player_match_change")


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.sql").write_text(text, encoding="utf-8")
    return path


def test_a_folder_that_is_not_there_means_no_queries_unless_it_was_named(tmp_path: Path) -> None:
    assert read_queries(tmp_path / "none", CHANNELS, is_required=False) is NO_QUERIES
    with pytest.raises(SettingsError, match=r"QUERIES_DIR='.*none': No such file or directory; it takes a folder"):
        read_queries(tmp_path / "none", CHANNELS, is_required=True)


def test_directives_stand_in_the_comments_at_the_beginning(tmp_path: Path) -> None:
    text = (
        "-- All players of a match: what the page shows.\n\n-- message: players-update\n-- spread: true\n"
        "--deletes:true\nSELECT '%%' || %(match_id)s || %(new_id)s\n-- spread: false\n"
    )
    queries = read_queries(folder(tmp_path, player_match_change=text, snapshot="SELECT %(match_id)s"), CHANNELS, True)

    assert queries.snapshot is not None
    assert queries.snapshot.parameters == {"match_id"}
    query = queries.channels["player_match_change"]
    assert (query.message, query.spread, query.deletes) == ("players-update", True, True)
    assert query.parameters == {"match_id", "new_id"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("match_change", "SELECT %(matchid)s", r"it has no parameter %\(matchid\)s, only %\(claims\)s, %\(match_id\)s"),
        ("match_change", "SELECT 1 % 2", "a percent sign is written %%"),
        ("match_change", "SELECT %s", "a percent sign is written %%"),
        ("match_change", "-- mesage: x\nSELECT 1", "the directive 'mesage' does not exist; 'message' does"),
        ("match_change", "-- message: initial-load\nSELECT 1", "is not the type of an update"),
        ("match_change", '-- message: a"b\nSELECT 1', "is not the type of an update"),
        ("match_change", "-- spread: yes\nSELECT 1", "it takes true or false"),
        ("snapshot", "SELECT 1", r"it needs %\(match_id\)s"),
        ("snapshot", "SELECT %(new_id)s", r"it has no parameter %\(new_id\)s"),
        ("snapshot", "-- spread: true\nSELECT %(match_id)s", "is for channels only"),
        ("authorize", "SELECT %(claims)s", r"it needs %\(match_id\)s"),
        ("authorize", "SELECT %(match_id)s, %(payload)s", r"it has no parameter %\(payload\)s"),
        ("snapshot", "-- claims: role\nSELECT %(match_id)s", r"claims: 'role', but it has no %\(claims\)s"),
        ("match_change", "-- claims: role,,sub\nSELECT %(claims)s", "it takes the names of claims, separated by"),
        ("match_change", "-- claim: role\nSELECT %(claims)s", "the directive 'claim' does not exist; 'claims' does"),
        ("other_change", "SELECT 1", "other_change is not one of NOTIFY_CHANNELS"),
    ],
)
def test_a_file_that_can_not_be_right_is_named_with_the_reason(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name}\.sql: .*{says}"):
        read_queries(folder(tmp_path, **{name: text}), CHANNELS, is_required=True)


def test_all_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    (tmp_path / "match_change.sql").write_bytes(b"SELECT '\xff'")
    (tmp_path / "snapshot.sql").mkdir()
    with pytest.raises(SettingsError) as raised:
        read_queries(tmp_path, CHANNELS, is_required=True)
    assert [line.rpartition("/")[2] for line in str(raised.value).splitlines()] == [
        "match_change.sql: it is not UTF-8",
        "snapshot.sql: it can't be read: Is a directory",
    ]


def test_a_text_without_parameters_is_a_channels_query() -> None:
    assert parse_query("match_change", "SELECT now()").parameters == frozenset()


def test_the_claims_of_a_file_are_those_that_its_directive_names_or_all(tmp_path: Path) -> None:
    files = {
        "authorize": "-- claims: sub\nSELECT %(claims)s::json ->> 'sub' = %(match_id)s",
        "snapshot": "-- claims: tenant, role\nSELECT %(claims)s || %(match_id)s",
        "match_change": "SELECT 1",
    }
    queries = read_queries(folder(tmp_path, **files), CHANNELS, is_required=True)
    assert queries.authorize is not None
    assert queries.authorize.claims == ClaimNames(frozenset({"sub"}))
    assert queries.claims == ClaimNames(frozenset({"tenant", "role"})), "what is shown does not depend on authorize.sql"
    assert not queries.channels["match_change"].claims
    folder(tmp_path, player_match_change="SELECT %(claims)s")
    assert read_queries(tmp_path, CHANNELS, is_required=True).claims.is_all


def test_another_key_has_a_snapshot_and_rights_of_its_own_with_its_name_as_the_parameter(tmp_path: Path) -> None:
    files = {
        "snapshot": "SELECT %(match_id)s",
        "snapshot.cup": "-- claims: tenant\nSELECT %(cup)s, %(claims)s",
        "authorize.cup": "-- claims: sub\nSELECT %(cup)s, %(claims)s",
        "match_change": "SELECT %(match_id)s, %(cup)s, %(season)s",
    }
    queries = read_queries(folder(tmp_path, **files), CHANNELS, True, ("cup", "season"))
    assert list(queries.snapshots) == ["match_id", "cup"]
    assert list(queries.rights) == ["cup"]
    assert list(queries.channels) == ["match_change"]
    assert queries.claims == ClaimNames(frozenset({"tenant"}))
    assert queries.channels["match_change"].parameters == {"match_id", "cup", "season"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("snapshot.cups", "SELECT %(cup)s", r"snapshot\.cups is not .*; a file is called .*, snapshot\.cup\.sql,"),
        ("snapshot.cup", "SELECT %(match_id)s", r"it has no parameter %\(match_id\)s, only %\(claims\)s, %\(cup\)s"),
        ("authorize.cup", "SELECT true", r"it needs %\(cup\)s"),
        ("snapshot", "SELECT %(cup)s", r"it has no parameter %\(cup\)s"),
        ("snapshot.cup", "-- spread: true\nSELECT %(cup)s", "is for channels only"),
    ],
)
def test_a_file_of_another_key_that_can_not_be_right_is_one_line(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        read_queries(folder(tmp_path, **{name: text}), CHANNELS, True, ("cup",))


def test_rights_for_some_keys_only_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, authorize="SELECT %(match_id)s <> '3'")
    settings = Settings(routing_key=("match_id", "cup"), queries_dir=tmp_path, ws_jwt_secret=Secret("x" * 32))
    with pytest.raises(SettingsError, match=r"^[^\n]*authorize\.cup\.sql is missing, [^\n]*$"):
        load_queries(settings)
    folder(tmp_path, **{"authorize.cup": "SELECT %(cup)s <> '3'"})
    assert list(load_queries(settings).rights) == ["match_id", "cup"]
    (tmp_path / "authorize.sql").unlink()
    with pytest.raises(SettingsError, match=r"authorize\.sql is missing"):
        load_queries(settings)
