"""The wheel, installed into an environment that holds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import streamer

ROOT = Path(__file__).parents[1]


def install(dist: Path, prefix: Path) -> None:
    """Build the wheel into ``dist`` and install it into ``prefix``, which finds what it depends on where we have it."""
    run(ROOT, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist))
    (wheel,) = dist.iterdir()
    assert wheel.name == f"streamer_multimodal-{streamer.__version__}-py3-none-any.whl"
    venv.create(prefix, with_pip=False, symlinks=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    assert [*packages.iterdir()] == []
    installing = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", str(wheel))
    run(ROOT, sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python"), *installing)
    assert {path.name for path in packages.iterdir()} == {
        "streamer",
        f"streamer_multimodal-{streamer.__version__}.dist-info",
    }
    # A line of a .pth file leads to a folder, but not to what that folder's .pth files name: not to this checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


def run(folder: Path, *command: str) -> str:
    """Run without settings and search paths from outside; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMER_", "PYTHON"))}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
