"""A real Prometheus, which scrapes an application's /metrics once a second."""

import http.client
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until


def program(name: str) -> str:
    """Return the path of one of its programs. If there is none, skip the test, or fail it in CI."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"there is no {name}: install the package prometheus")
        pytest.skip(f"there is no {name}")
    return path


class Prometheus(Process):
    """Prometheus with its data in a new folder. Ready when the constructor returns.

    Args:
        folder: it is created.
        ports: of applications on this machine.
        rules: a file of rules.
    """

    def __init__(self, folder: Path, ports: Sequence[int], rules: Path) -> None:
        folder.mkdir()
        self._port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": "notifymux", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        options = [f"--web.listen-address=127.0.0.1:{self._port}", f"--storage.tsdb.path={folder / 'data'}"]
        super().__init__([program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", *options], folder, {})
        wait_until(self._is_ready, 30, lambda: f"ready:\n{self.log}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, now."""
        data = self._get(f"/api/v1/query?{urlencode({'query': expression})}")
        assert data["status"] == "success", (expression, data)
        return data["data"]["result"]  # type: ignore[no-any-return]

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Return the state of each alert of the rules."""
        groups = self._get("/api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def _is_ready(self) -> bool:
        try:
            return self._request("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        return json.loads(self._request(path)[1])

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
