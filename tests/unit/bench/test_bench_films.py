"""What the benchmark of films reports, and the film that it makes; nothing is sent."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from bench import films
from bench.films import Sent
from bench.rig import Spread

MIB = 1 << 20


def test_a_rate_is_compared_with_all_pictures_and_with_the_same_ones() -> None:
    found = {
        "before": [Sent(10.0, 9.0, 300 * MIB), Sent(20.0, 19.0, 300 * MIB)],
        "at a rate": [Sent(5.0, 4.0, 220 * MIB), Sent(8.0, 7.0, 220 * MIB)],
        "all": [Sent(10.0, 9.0, 300 * MIB), Sent(10.0, 9.0, 300 * MIB)],
        "before, thinned": [Sent(10.0, 9.0, 300 * MIB), Sent(10.0, 9.0, 300 * MIB)],
        "short": [Sent(1.0, 0.9, 200 * MIB), Sent(1.0, 0.9, 200 * MIB)],
    }
    reported = {figure.name: figure for figure in films.figures(found)}
    wall = reported["`--rate 10` ÷ before, which sends all pictures, wall"]
    assert (wall.spread, wall.aim) == (Spread.of([0.5, 0.4]), 0.6)
    assert reported["`--rate 10` ÷ before, thinned to the same pictures, wall"].spread == Spread.of([0.5, 0.8])
    assert reported["`--rate 10`, peak memory ÷ of a film of a quarter"].spread == Spread.of([1.1, 1.1])


def test_a_tree_whose_inside_is_not_known_is_not_thinned(tmp_path: Path) -> None:
    names = [side.name for side in films.sides_of(tmp_path, tmp_path / "a.mp4", tmp_path / "b.mp4")]
    assert names == ["before", "at a rate", "all", "short"]


def test_the_film_has_the_length_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "WIDTH", 160)
    monkeypatch.setattr(films, "HEIGHT", 80)
    with av.open(str(films.made(tmp_path / "a.mp4", 16))) as container:
        assert container.duration == 16_000_000
        assert container.streams.video[0].frames == 480
