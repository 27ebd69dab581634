"""A kind from outside: one file of the namespace package ``streamer_kinds``, which nothing here knows of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIDAR = ROOT / "tests" / "lidar"


def run(*arguments: str, folder: Path = LIDAR) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(ROOT), str(folder)))
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
        },  # a small network: threads cost more than they do
        timeout=300,
    )


def test_a_kind_in_one_file_of_its_own_works_from_its_topic_to_a_result_and_in_training() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(LIDAR / "lidar_works.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_an_aligner_with_such_a_kind_imports_no_pytorch() -> None:
    code = "import sys, streamer.worker.role_align, streamer_kinds.lidar; print('torch' in sys.modules)"
    assert run("-c", code).stdout == "False\n"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("import radar", "streamer_kinds.mine cannot be imported: ModuleNotFoundError: No module named 'radar'"),
        ("KIND = 3", "streamer_kinds.mine has no KIND, which is a streamer.kinds.kind.Kind"),
        (
            "from streamer.kinds.image import Image\nKIND = Image()",
            "streamer_kinds.mine: there is a kind image with this name, topic or type",
        ),
    ],
)
def test_a_module_without_a_kind_of_its_own_is_refused_in_one_line(tmp_path: Path, module: str, says: str) -> None:
    (tmp_path / "streamer_kinds").mkdir()
    (tmp_path / "streamer_kinds" / "mine.py").write_text(module)
    (tmp_path / "streamer_kinds" / "_part.py").write_text("raise AssertionError('not looked at')")
    done = run("-m", "streamer", "settings", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"streamer: {says}"
