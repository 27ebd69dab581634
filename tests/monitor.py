"""A real Prometheus with the alerts that are shipped, beside workers under test."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamer.local.process import free_port
from streamer.local.program import Program

RULES = Path(__file__).parents[1] / "k8s" / "components" / "monitoring" / "rules.yaml"
CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: streamer
    file_sd_configs: [{files: [%s], refresh_interval: 1s}]
"""


class Monitor:
    """Scrapes workers every second and evaluates the alerts as often."""

    def __init__(self, folder: Path, port: int) -> None:
        self._targets = folder / "targets.json"
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    def watch(self, *ports: int) -> None:
        """Scrape the workers with these ports."""
        addresses = [f"127.0.0.1:{port}" for port in ports]
        self._targets.write_text(json.dumps([{"targets": addresses}]))

    def query(self, expression: str) -> list[dict[str, str]]:
        """Labels of what a query finds now."""
        with urllib.request.urlopen(
            f"{self._url}?{urllib.parse.urlencode({'query': expression})}", timeout=10
        ) as answer:
            found = json.load(answer)
        return [one["metric"] for one in found["data"]["result"]]

    def scraped(self) -> int:
        """Workers that answered within the last minutes."""
        return len(self.query("count_over_time(up[1h]) and max_over_time(up[1h]) == 1"))

    def fired(self) -> set[str]:
        """Names of the alerts that fired at any time."""
        return {found["alertname"] for found in self.query('count_over_time(ALERTS{alertstate="firing"}[1h])')}


@contextmanager
def monitoring(folder: Path) -> Iterator[Monitor]:
    """Prometheus, until the block ends; skips where there is none."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH (Debian's package prometheus has it)")
    port = free_port()
    monitor = Monitor(folder, port)
    monitor.watch()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG % (RULES, folder / "targets.json"))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with Program(command, folder / "prometheus.log", {}, folder, "Prometheus") as running:
        running.wait_for(lambda: _answers(monitor), 30.0, lambda: "answer")
        yield monitor


def _answers(monitor: Monitor) -> bool:
    try:
        return bool(monitor.query("vector(1)"))
    except OSError:
        return False
