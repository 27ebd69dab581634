"""A kind from outside, the lidar of ``tests/lidar``, through a real Kafka, a worker and Redis. This process has no such
kind: it sends as any client does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamer.local import worker
from streamer.settings import Settings
from tests.harness import ROOT, S_US, Outgoing, end, results, rfc3339, second, send, wait_for

pytestmark = pytest.mark.integration

LIDAR = ROOT / "tests" / "lidar"
T0_US = 1_760_000_000 * S_US
BEAMS = 6
MAKE_MODEL = """
import sys
from pathlib import Path
from streamer.model import repository
from streamer.model.spec import read_spec
folder = Path(sys.argv[1])
repository.write(folder, repository.new_module(read_spec(folder), folder, None), None, {})
"""


def scan(settings: Settings, at_us: int, offset: int, beams: int = BEAMS) -> Outgoing:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"scan-{offset}",
        "ce_source": "/lidar",
        "ce_type": "example.scan.v1",
        "ce_sensor": "lidar_roof",
        "content-type": f"application/x-scan;beams={beams}",
    }
    pairs = [(name, value.encode()) for name, value in headers.items()]
    value = np.full(BEAMS, 1.5, "<f4").tobytes()
    return Outgoing(settings.topic("scans"), b"car", value, [*pairs, ("ce_time", rfc3339(at_us))])


def test_its_records_become_results_of_a_model_that_reads_them(topics: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "near"
    shutil.copytree(LIDAR / "near", folder)
    added = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(LIDAR))),
        "STREAMER_SENSORS__LIDAR_ROOF__KIND": "lidar",
        "STREAMER_SENSORS__LIDAR_ROOF__MAX_DELAY_MS": "3000",
        "STREAMER_MODEL": str(folder),
    }
    env = os.environ | worker.environment(topics) | added
    subprocess.run([sys.executable, "-c", MAKE_MODEL, str(folder)], env=env, cwd=ROOT, check=True, timeout=120)
    subprocess.run([sys.executable, "-m", "streamer", "topics", "create"], env=env, cwd=ROOT, check=True, timeout=60)
    with worker.WorkerProcess(topics, tmp_path / "worker.log", env=added, cwd=ROOT) as running:
        running.wait_ready()
        records = [one for n in range(3) for one in second(topics, "car", T0_US + n * S_US)]
        records += [scan(topics, T0_US + n * S_US // 4, n) for n in range(12)]
        send(topics, [*records, scan(topics, T0_US, 12, beams=7), end(topics, "car", T0_US + 3 * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "car")) == 3, 60.0, running.text)
        found = results(topics.redis, topics, "car")
    assert [result["present"].decode().split(",")[-1] for result in found] == ["lidar_roof"] * 3
    assert all(topics.topic("scans").encode() in result["members"] for result in found)
    assert all(b'"ahead"' in result["outputs"] and result["status"] == b"ok" for result in found)
    command = [sys.executable, "-m", "streamer", "deadletters", "--json"]
    told = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, timeout=60)
    assert b"24 bytes are no 7 distances" in told.stdout
