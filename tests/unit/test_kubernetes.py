"""docs/deploy for Kubernetes: ends in time, one pod after another, and scales by the clients of a pod."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from app.core.config import SETTINGS, Settings
from app.web.gunicorn_worker import STOP_SECONDS
from tests.support.documents import DEPLOYED, OPERATIONS
from tests.support.process import ROOT

FILES = [path for path in DEPLOYED if path.name.startswith("kubernetes")]
LISTENER_SECONDS = 5  # that the watchdog gives listeners after the web workers
SERVERS_SECONDS = 5  # and room for supervisord

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def of_kind(path: Path, kind: str) -> Mapping[str, Any]:
    documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    [found] = [document for document in documents if document["kind"] == kind]
    return found  # type: ignore[no-any-return]


def pod(path: Path) -> Mapping[str, Any]:
    return of_kind(path, "Deployment")["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def serving(path: Path) -> Mapping[str, Any]:
    """The container with the web workers."""
    [found] = [container for container in pod(path)["containers"] if "ports" in container]
    return found  # type: ignore[no-any-return]


@every_file
def test_a_pod_has_time_for_its_drain_and_for_all_that_ends_after_it(path: Path) -> None:
    [drain] = [int(each["value"]) for each in serving(path)["env"] if each["name"] == "DRAIN_SECONDS"]
    assert drain == Settings().drain_seconds
    needed = drain + STOP_SECONDS + LISTENER_SECONDS + SERVERS_SECONDS
    assert pod(path)["terminationGracePeriodSeconds"] >= needed


def test_supervisord_waits_for_the_longest_drain_and_stops_the_listener_after_the_workers() -> None:
    text = (ROOT / "supervisord.conf").read_text(encoding="utf-8")
    programs = dict(re.findall(r"^\[program:(\w+)\]\n(.*?)^$", text, re.MULTILINE | re.DOTALL))
    values = {name: dict(re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)) for name, section in programs.items()}
    [longest] = re.findall(r" to (\d+)$", SETTINGS["DRAIN_SECONDS"].metadata["type"].takes)
    assert int(values["app"]["stopwaitsecs"]) > int(longest) + STOP_SECONDS
    assert int(values["app"]["priority"]) > int(values["listener"]["priority"]), "those with the highest stop first"


@every_file
def test_probes_ask_for_life_and_readiness_and_nothing_is_done_before_a_stop(path: Path) -> None:
    container = serving(path)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "lifecycle" not in container


@every_file
def test_a_listener_of_its_own_is_a_sidecar_which_ends_after_the_web_workers(path: Path) -> None:
    beside = [each for each in pod(path)["containers"] if each["name"] != serving(path)["name"]]
    assert beside == []
    assert [each["restartPolicy"] for each in pod(path).get("initContainers", [])] in ([], ["Always"])


@every_file
def test_pods_end_one_at_a_time_and_an_update_starts_the_new_one_first(path: Path) -> None:
    deployment, budget = of_kind(path, "Deployment")["spec"], of_kind(path, "PodDisruptionBudget")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert budget["maxUnavailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    assert labels.items() >= budget["selector"]["matchLabels"].items() == deployment["selector"]["matchLabels"].items()


@every_file
def test_the_autoscaler_alone_decides_the_number_of_pods_by_a_documented_gauge(path: Path) -> None:
    deployment, scaler = of_kind(path, "Deployment"), of_kind(path, "HorizontalPodAutoscaler")["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "each `kubectl apply` would set it back"
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"], "of one pod, none is left while it is replaced"
    gauges = re.findall(r"^\| `(\w+)` \| gauge \|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    [metric] = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in gauges
    assert int(metric["pods"]["target"]["averageValue"]) < Settings().max_clients
