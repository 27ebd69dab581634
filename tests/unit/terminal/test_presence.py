"""How tables show the sensors of windows, of any number, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from streamer.feeds import car
from streamer.result import Result
from streamer.terminal import board as boards
from streamer.terminal import tables
from tests.terminals import END_US, lines, result


def window(shares: Mapping[str, float], end_us: int = END_US, **changed: object) -> Result:
    """A window with these coverages, of which 0 is absence."""
    here = tuple(name for name, share in shares.items() if share)
    return result("a-session-with-a-very-long-name", coverage=dict(shares), present=here, end_us=end_us, **changed)


def shown(*results: Result) -> list[str]:
    """The board and the listing, whose columns of sensors are the same."""
    board = boards.Board()
    for one in results:
        board.update(one)
    assert max(map(len, lines(board))) <= 80
    listing = lines(tables.listing(results))
    assert max(map(len, listing)) <= 80
    assert listing[1].split()[-5:] == lines(board)[1].split()[-5:]
    return listing


@pytest.mark.parametrize(
    ("shares", "head", "row"),
    [
        ({"dashcam": 1.0}, ["dashcam"], ["100"]),
        ({"image": 1.0, "can": 0.834, "words": 0.0}, ["img", "can", "words"], ["100", "83", "–"]),
        ({"camera_front_left": 1.0, "camera_rear": 0.5}, ["a", "b"], ["100", "50"]),
    ],
)
def test_up_to_four_sensors_are_percent_below_their_names_or_letters(
    shares: dict[str, float], head: list[str], row: list[str], zone: str
) -> None:
    told = shown(window(shares))
    assert told[0].split()[4:-2] == head
    assert told[1].split()[3:-2] == row
    legend = ["a=camera_front_left  b=camera_rear"] if head == ["a", "b"] else []
    assert [line.rstrip() for line in told[2:]] == legend


def test_eleven_sensors_are_a_bar_each_below_letters_that_a_legend_explains(zone: str) -> None:
    names = car.SETS["all"]
    shares = dict(zip(names, (1.0, 0.9, 0.51, 0.5, 0.13, 0.01, 0.0, 0.99, 0.0, 1.0, 1.0), strict=True))
    told = [" ".join(line.split()) for line in shown(window(shares))]
    assert told[0].split()[4:-2] == ["abcdefghijk"]
    assert told[1].split()[3:-2] == ["██▅▄▂▁–█–██"]
    assert " ".join(told[2:]) == " ".join(f"{letter}={name}" for letter, name in zip("abcdefghijk", names, strict=True))


def test_twenty_one_sensors_still_have_bars_and_more_are_counted(zone: str) -> None:
    many = {f"camera_{number:02}": 1.0 for number in range(21)}
    assert "█" * 21 in shown(window(many))[1]
    told = shown(window(many | {"one_more": 0.0}))
    assert told[1].split()[-3] == "21/22"
    assert len(told) == 2


def test_of_windows_with_different_sensors_each_has_its_own_and_the_newest_come_first(zone: str) -> None:
    old, new = {"image": 1.0, "text": 0.0}, {"camera": 1.0, "image": 0.0}
    told = shown(window(old), window(new, END_US + 1_000_000))
    assert told[0].split()[4:-2] == ["camera", "img", "txt"]
    assert told[1].split()[3:-2] == ["100", "–"]  # this one has no camera, which is not the same as a silent one
    assert told[2].split()[3:-2] == ["100", "–"]
