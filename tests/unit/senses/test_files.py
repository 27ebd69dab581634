"""What takes a role: found without importing anything, refused when it is not the known file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.senses import files
from streamer.senses.files import find, locate, state
from streamer.senses.listing import listing
from streamer.senses.table import ROLES, TABLE, File, Package, Row
from streamer.settings import SENSE_ROLES, Settings

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
GRAPH, LABELS = b"a graph", b"horn\nsiren\n"


def row(name: str = "toy", extra: bool = False) -> Row:
    """A network of two files in a package that nobody has installed."""
    known = {
        "graph": File("toy_sounds/data/graph.onnx", hashlib.sha256(GRAPH).hexdigest()),
        "labels": File("toy_sounds/data/labels.txt", hashlib.sha256(LABELS).hexdigest()),
    }
    package = Package(f"{name}-sounds-of-nobody", "1.0", "0" * 64, 1_500_000, known)
    return Row("sounds", name, (package,), "MIT", "nobody", extra, "sound -> nothing")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "rows", lambda role: [row(), row("tool", extra=True)])


@pytest.fixture
def settings(tmp_path: Path, toys: None) -> Settings:
    return Settings(senses_dir=tmp_path / "fetched")


def put(folder: Path, graph: bytes = GRAPH) -> Path:
    """The toy's files, as they are named in its package."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.onnx").write_bytes(graph)
    (folder / "labels.txt").write_bytes(LABELS)
    return folder


def fetched(settings: Settings, name: str = "toy", graph: bytes = GRAPH) -> Path:
    return put(settings.senses_dir / name / "toy_sounds" / "data", graph)


def refusal(settings: Settings, role: str = "sounds") -> str:
    with pytest.raises(UsageError) as refused:
        find(role, settings)
    (line,) = str(refused.value).splitlines()
    return line


def test_fetched_files_are_found_by_their_keys(settings: Settings) -> None:
    folder = fetched(settings)
    sense = find("sounds", settings)
    assert (sense.role, sense.name, sense.row) == ("sounds", "toy", row())
    assert sense.files == {"graph": folder / "graph.onnx", "labels": folder / "labels.txt"}
    assert (sense.place, sense.loader) == (None, None)
    assert re.fullmatch("[0-9a-f]{12}", sense.version)


def test_a_file_of_other_content_is_refused(settings: Settings) -> None:
    folder = fetched(settings, graph=b"another graph")
    assert state(row(), settings.senses_dir) == "changed"
    line = refusal(settings)
    assert line.startswith(f"{folder / 'graph.onnx'} is not the known file of toy")
    assert "streamer senses --fetch toy" in line
    assert "STREAMER_SENSES__SOUNDS" in line


def test_a_file_that_changes_after_it_was_checked_is_refused_too(settings: Settings) -> None:
    folder = fetched(settings)
    find("sounds", settings)
    put(folder, graph=b"a grape")  # as long as before
    assert "is not the known file" in refusal(settings)


def test_a_network_that_lacks_a_file_is_missing(settings: Settings) -> None:
    (fetched(settings) / "labels.txt").unlink()
    assert state(row(), settings.senses_dir) == "missing"
    assert refusal(settings) == "sounds needs toy, which is not here: `streamer senses --fetch toy`"


def test_what_the_extra_installs_is_said_to_come_by_it(settings: Settings) -> None:
    chosen = settings.model_copy(update={"senses": {"sounds": "tool"}})
    assert refusal(chosen) == (
        "sounds needs tool, which is not here: pip install 'streamer-multimodal[senses]', "
        "or `streamer senses --fetch tool`"
    )


def test_the_first_that_is_there_takes_the_role_and_a_setting_chooses_another(settings: Settings) -> None:
    fetched(settings, "tool")
    assert find("sounds", settings).name == "tool"
    fetched(settings)
    assert find("sounds", settings).name == "toy"
    assert find("sounds", settings.model_copy(update={"senses": {"sounds": "tool"}})).name == "tool"


def test_a_folder_of_ones_own_with_files_of_these_names_is_read_like_the_row(
    settings: Settings, tmp_path: Path
) -> None:
    own = put(tmp_path / "own", graph=b"my graph")
    sense = find("sounds", settings.model_copy(update={"senses": {"sounds": str(own)}}))
    assert sense.row == row()
    assert sense.files["graph"].read_bytes() == b"my graph"
    version = sense.version
    put(own, graph=b"my other graph")
    assert find("sounds", settings.model_copy(update={"senses": {"sounds": str(own)}})).version != version


def test_any_other_folder_is_left_to_a_library(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    sense = find("sounds", settings.model_copy(update={"senses": {"sounds": str(tmp_path / "own")}}))
    assert (sense.row, sense.files, sense.place, sense.loader) == (None, {}, str(tmp_path / "own"), None)


def test_a_name_is_left_to_the_loader_before_it(settings: Settings) -> None:
    sense = find("sounds", settings.model_copy(update={"senses": {"sounds": "transformers:someone/sounds"}}))
    assert (sense.row, sense.place, sense.loader) == (None, "someone/sounds", "transformers")
    assert sense.version == "transformers:someone/sounds"


def test_one_file_does_not_stand_for_several(settings: Settings, tmp_path: Path) -> None:
    one = put(tmp_path / "own") / "graph.onnx"
    line = refusal(settings.model_copy(update={"senses": {"sounds": str(one)}}))
    assert line.endswith("give a folder with those of toy: graph.onnx, labels.txt; tool: graph.onnx, labels.txt")


def test_a_setting_that_names_nothing_is_refused(settings: Settings) -> None:
    line = refusal(settings.model_copy(update={"senses": {"sounds": "toyy"}}))
    assert "STREAMER_SENSES__SOUNDS: toyy is no file or folder, nor one of toy, tool, faster-whisper:NAME" in line


def test_the_table_says_what_a_reader_of_it_needs() -> None:
    assert tuple(ROLES) == SENSE_ROLES
    assert {known.role for known in TABLE} == set(ROLES)
    assert len({known.name for known in TABLE}) == len(TABLE)
    for known in TABLE:
        hashes = [file.sha256 for file in known.files.values()] + [package.wheel_sha256 for package in known.packages]
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)
        assert len(known.files) == sum(len(package.files) for package in known.packages)
        assert known.licence
        assert known.maker


def test_the_extra_installs_the_rows_that_are_marked_so_in_these_versions() -> None:
    pinned = {requirement.partition(";")[0] for requirement in EXTRAS["senses"]}
    for known in TABLE:
        wanted = {f"{package.name}=={package.version}" for package in known.packages}
        assert (wanted <= pinned) == known.extra, known.name


@pytest.mark.parametrize("known", [known for known in TABLE if known.extra], ids=lambda known: known.name)
def test_what_the_extra_installs_is_what_the_table_says(known: Row, tmp_path: Path) -> None:
    if any(importlib.util.find_spec(package.name.replace("-", "_")) is None for package in known.packages):
        pytest.skip("the extra senses is not installed, or this platform has no wheel of it")
    assert state(known, tmp_path) == "ready"


def test_finding_files_imports_no_package_of_theirs(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from streamer.senses import files, table; "
        "[files.state(row, Path('none')) for row in table.TABLE]; "
        "print(sorted({'torch', 'cv2', 'onnxruntime', 'rapidocr', 'silero_vad', 'moonshine_cpp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_installed_file_is_found_where_its_package_is(settings: Settings) -> None:
    known = Package("tokenizers", "0", "0" * 64, 1, {"code": File("tokenizers/__init__.py", "0" * 64)})
    located = locate(row()._replace(packages=(known,)), settings.senses_dir)
    spec = importlib.util.find_spec("tokenizers")
    assert located is not None
    assert spec is not None
    assert spec.origin is not None
    assert located["code"].samefile(spec.origin)


def test_the_listing_names_what_a_setting_put_in_place_of_the_table(tmp_path: Path) -> None:
    lines = listing(Settings(senses_dir=tmp_path, senses={"sounds": str(tmp_path), "voice": "no-such-file"}))
    own, *known = [line for line in lines if line.role == "sounds"]
    assert (own.name, own.state, own.in_use) == (str(tmp_path), "ready", True)
    assert [(line.name, line.in_use) for line in known] == [("yamnet", False)]
    (voice, *_) = [line for line in lines if line.role == "voice"]
    assert (voice.name, voice.state) == ("no-such-file", "missing")
    assert "no-such-file is no file or folder" in voice.trouble


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "senses.md").read_text("utf-8")
    assert [line for line in page.splitlines() if line.startswith(tuple(f"| {role} | " for role in ROLES))] == [
        f"| {known.role} | {known.name} | {', '.join(f'{p.name} {p.version}' for p in known.packages)} "
        f"| {len(known.files)}, {known.wheel_bytes / 1e6:.1f} MB | {known.licence} | {known.maker} "
        f"| {'extra' if known.extra else '--fetch'} |"
        for known in TABLE
    ]
