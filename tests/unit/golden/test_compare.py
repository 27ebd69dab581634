"""What counts as a difference between two results of one window."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from streamer.errors import UsageError
from streamer.golden import verify
from streamer.golden.compare import Difference, differences, extra, missing
from streamer.result import Result
from streamer.terminal import verification

S_US = 1_000_000


def result(**changes: Any) -> Result:
    values = {
        "session": "car",
        "start_us": 5 * S_US,
        "end_us": 6 * S_US,
        "closed_by": "complete",
        "present": ("image", "audio"),
        "coverage": {"image": 1.0, "audio": 0.5},
        "members": {"t.frames": ((3, 5), (9, 9)), "t.audio": ((2, 2),)},
        "outputs": {"action": {"label": "go", "score": 0.7, "scores": {"go": 0.7, "stop": 0.3}}},
        "embedding": np.array([0.6, 0.8], "<f2").tobytes(),
        "model": "driving",
        "version": "1-abc",
        "status": "ok",
        "latencies_us": {"total": 7},
    }
    return Result(**{**values, **changes})


def scores(label: str, go: float, stop: float) -> dict[str, Any]:
    return {"action": {"label": label, "score": max(go, stop), "scores": {"go": go, "stop": stop}}}


def found(**changes: Any) -> list[tuple[str, str, Any, Any]]:
    return [(d.kind, d.where, d.expected, d.found) for d in differences(result(), result(**changes))]


def test_a_result_does_not_differ_from_itself_nor_in_what_varies_by_run() -> None:
    assert found() == []
    assert found(latencies_us={"total": 99}, model="other", version="2") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"closed_by": "deadline"}, ("closed_by", "", "complete", "deadline")),
        ({"present": ("image",)}, ("present", "", ("image", "audio"), ("image",))),
        ({"status": "failed"}, ("status", "", "ok", "failed")),
        ({"coverage": {"image": 1.0, "audio": 0.6}}, ("coverage", "audio", 0.5, 0.6)),
        ({"members": {"t.frames": ((3, 5), (9, 9))}}, ("members", "t.audio", ((2, 2),), None)),
        ({"outputs": {}}, ("outputs", "action", result().outputs["action"], None)),
        ({"outputs": scores("stop", 0.7, 0.3)}, ("label", "action", "go", "stop")),
        ({"embedding": np.array([0.8, 0.6], "<f2").tobytes()}, ("embedding", "largest difference", 0.0, 0.199707)),
        ({"embedding": np.array([1.0], "<f2").tobytes()}, ("embedding", "size", 2, 1)),
    ],
)
def test_each_field_shows_as_its_own_kind(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert found(**changes) == [expected]


def test_scores_may_differ_by_the_tolerance_and_no_more() -> None:
    assert found(outputs=scores("go", 0.701, 0.299)) == []
    assert found(outputs=scores("go", 0.7011, 0.2989)) == [
        ("score", "action/go", 0.7, 0.7011),
        ("score", "action/stop", 0.3, 0.2989),
    ]
    assert list(differences(result(), result(outputs=scores("go", 0.75, 0.25)), tolerance=0.1)) == []
    assert found(outputs=scores("go", float("nan"), 0.3))[0][:2] == ("score", "action/go")


def test_embeddings_of_two_models_or_of_none_say_nothing() -> None:
    other = np.array([0.8, 0.6], "<f2").tobytes()
    assert found(embedding=other, version="2-def") == []
    assert found(embedding=b"") == []


def test_a_table_shows_the_first_differences_and_the_counts() -> None:
    listed = [missing(result()), extra(result(session="b\x1b[31mus")), *differences(result(), result(present=()))]
    summary = verify.Summary(
        records=10, windows=3, compared=3, same=1, kinds={"missing": 1}, models={"run": ["m 1"], "reference": ["m 0"]}
    )
    console = Console(width=100, record=True, file=io.StringIO())

    console.print(verification.view(verify.Report(summary, listed), shown=2))
    text = console.export_text()
    assert "1 of 3 are the same" in text
    assert "and 1 more differences" in text
    assert "m 1; the reference is of m 0" in text
    assert "\x1b" not in text
    assert text.count("complete") == 2


def test_every_difference_and_the_summary_are_a_line_of_json() -> None:
    report = verify.Report(verify.Summary(compared=1), [missing(result())])
    first, last = verify.as_json(report)
    assert msgspec.json.decode(first, type=Difference) == report.differences[0]
    assert msgspec.json.decode(last)["summary"]["compared"] == 1


def test_results_are_read_from_a_file_with_and_without_embeddings(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(result().to_json(embedding=True) + b"\n\n" + result(session="b").to_json() + b"\n")
    reference = verify.FileReference(tmp_path / "r")
    assert reference.of("car") == {6 * S_US: result()}
    assert reference.of("b") == {6 * S_US: result(session="b", embedding=b"")}
    assert reference.of("nobody") == {}
    assert reference.sessions() == {"car", "b"}


@pytest.mark.parametrize("line", [b"{", b"7", b"{}", b'{"session": 7}', b"\xff"])
def test_a_line_that_is_no_result_is_named(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(result().to_json() + b"\n" + line + b"\n")
    with pytest.raises(UsageError, match="r line 2 is no result"):
        verify.FileReference(tmp_path / "r")
