"""What is said of results, and what cuts off what; and how an utterance travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.errors import ModelError, UsageError
from streamer.events import SPEECH_TYPE
from streamer.model.spec import InputSpec, ModelSpec, Output, Sentence, TextInput, read_spec
from streamer.result import Result
from streamer.speak import records
from streamer.speak.sentences import Memory, Severity, Speaker, Utterance, sentences

ROOT = Path(__file__).parents[3]
S_US = 1_000_000
START_US = 1_750_000_000 * S_US
TABLE = {
    "action": {
        "emergency_stop": Sentence("Emergency stop!", "alarm"),
        "brake": Sentence("Brake, {speed}.", "warning"),
        "hold": Sentence("Hold."),
    },
    "sounds": {
        "siren": Sentence("Siren.", "warning", again_after_s=5),
        "horn": Sentence("Horn.", again_after_s=5),
    },
}


def result(second: int, action: str = "proceed", sounds: tuple[str, ...] = (), **changed: Any) -> Result:
    outputs = {
        "action": {"label": action, "score": 0.9, "scores": {}},
        "sounds": {"labels": list(sounds), "scores": {}},
        "speed": {"value": 12.5, "unit": "m/s"},
    }
    values: dict[str, Any] = {
        "session": "car 1/ü",
        "start_us": START_US + (second - 1) * S_US,
        "end_us": START_US + second * S_US,
        "closed_by": "complete",
        "present": (),
        "coverage": {},
        "members": {},
        "outputs": outputs,
        "embedding": b"",
        "model": "m",
        "version": "1",
        "status": "ok",
        "latencies_us": {},
    }
    return Result(**values | changed)


def said(results: list[Result], duration_us: int = 100_000) -> list[tuple[int, str]]:
    """Second and text of what is said; the memory travels as it does in Redis."""
    speaker, state, found = Speaker(TABLE), msgspec.json.encode(Memory()), []
    for one in results:
        memory = msgspec.json.decode(state, type=Memory)
        utterance = speaker.hear(one, memory)
        if utterance is not None:
            speaker.said(utterance, duration_us, memory)
            found.append(((utterance.end_us - START_US) // S_US, utterance.text))
        state = msgspec.json.encode(memory)
    return found


def test_a_decision_is_said_when_it_changes_and_not_while_it_lasts() -> None:
    actions = ["hold", "hold", "proceed", "hold", "brake", "brake"]
    assert said([result(i, action) for i, action in enumerate(actions)]) == [
        (0, "Hold."),
        (3, "Hold."),
        (4, "Brake, 12.5 m/s."),
    ]


def test_a_label_that_flickers_is_said_again_only_after_its_pause() -> None:
    heard = [(), ("siren",), (), ("siren",), (), (), (), (), (), (), ("siren",)]
    assert said([result(i, sounds=sounds) for i, sounds in enumerate(heard)]) == [(1, "Siren."), (10, "Siren.")]


def test_what_begins_with_one_window_is_one_utterance_the_most_severe_first() -> None:
    speaker, memory = Speaker(TABLE), Memory()
    utterance = speaker.hear(result(0, "emergency_stop", ("horn", "siren")), memory)
    assert utterance is not None
    assert (utterance.text, utterance.severity) == ("Emergency stop! Siren. Horn.", Severity.ALARM)


def test_a_window_on_which_the_model_failed_changes_nothing() -> None:
    failed = result(1, status="failed", outputs={})
    assert said([result(0, "hold"), failed, result(2, "hold")]) == [(0, "Hold.")]


def test_a_session_that_ended_begins_anew() -> None:
    last = [result(i, "hold", ("siren",), closed_by="end") for i in (1, 2, 3)]  # they close together
    whole = [result(0, "hold"), *last]
    assert said([*whole, result(4, "hold", ("siren",))]) == [(0, "Hold."), (1, "Siren."), (4, "Siren. Hold.")]
    assert said([*whole, result(9, "hold", closed_by="end")]) == [(0, "Hold."), (1, "Siren."), (9, "Hold.")]


def cuts(results: list[Result], duration_us: int) -> list[str]:
    """What each utterance cuts off, by second."""
    speaker, memory, seconds = Speaker(TABLE), Memory(), {"": ""}
    found = []
    for one in results:
        utterance = speaker.hear(one, memory)
        if utterance is not None:
            speaker.said(utterance, duration_us, memory)
            seconds[utterance.id] = str((utterance.end_us - START_US) // S_US)
            found.append(seconds[utterance.supersedes])
    return found


def test_only_one_that_is_more_severe_cuts_off_the_one_being_said() -> None:
    drive = [result(0, "hold"), result(1, "brake"), result(2, "hold"), result(3, "emergency_stop")]
    assert cuts(drive, 10 * S_US) == ["", "0", "", "1"]
    assert cuts(drive, S_US // 2) == ["", "", "", ""], "what has been said is not cut off"


def test_one_that_waited_is_being_said_after_the_one_before_it() -> None:
    drive = [result(0, "brake"), result(1, "hold"), result(4, "brake")]
    assert cuts(drive, 3 * S_US) == ["", "", "1"], "second 4: 'hold' waited until second 3"


def test_a_newer_one_takes_the_place_of_the_one_that_waits() -> None:
    drive = [result(0, "brake"), result(1, "hold"), result(2, sounds=("horn",)), result(4, "brake")]
    assert cuts(drive, 3 * S_US) == ["", "", "", "2"]


# the record


def test_an_utterance_is_the_same_after_its_way_through_a_record() -> None:
    utterance = Utterance("car 1/ü", START_US, "Bremsen, größer!", Severity.ALARM, "car/x/1")
    pairs = records.headers(utterance, 900_000)
    assert records.read("car 1/ü".encode(), pairs) == utterance
    assert dict(pairs)["ce_id"] == f"car%201%2F%C3%BC/{SPEECH_TYPE}/{START_US}".encode() == utterance.id.encode()
    assert dict(pairs)["ce_durationus"] == b"900000"


@pytest.mark.parametrize(
    "change",
    [
        {"ce_type": b"streamer.audio.v1"},
        {"ce_type": None},
        {"ce_time": b"yesterday"},
        {"ce_severity": b"deadly"},
        {"ce_text": b"\xff"},
        {"ce_text": None},
    ],
)
def test_what_is_no_utterance_is_passed_over(change: dict[str, bytes | None]) -> None:
    pairs = dict(records.headers(Utterance("car", START_US, "Hold.", Severity.NOTICE), 1))
    assert records.read(b"car", (pairs | change).items()) is None
    assert records.read(None, pairs.items()) is None


# the model's table


def test_the_models_of_this_repository_say_what_their_labels_are() -> None:
    for folder in (ROOT / "models").iterdir():
        spec = read_spec(folder)
        assert set(sentences(spec)) <= set(spec.outputs)
    assert sentences(read_spec(ROOT / "models" / "driving"))["action"]["emergency_stop"].severity == "alarm"


def spec(**outputs: Output) -> ModelSpec:
    return ModelSpec("m", "1", 1000, InputSpec(text=TextInput(8)), outputs)


def test_without_a_table_labels_are_said_as_they_are_called() -> None:
    table = sentences(spec(speed=Output(kind="number"), action=Output(("pull_over", "hold"))))
    said = {"pull_over": Sentence("Pull over.", "notice"), "hold": Sentence("Hold.", "notice")}
    assert table == {"action": said}
    with pytest.raises(UsageError, match=r"numbers alone, of which nothing is said: add \[speak\]"):
        sentences(spec(speed=Output(kind="number")))


def test_a_sentence_that_does_not_say_how_severe_it_is_is_as_severe_as_its_label() -> None:
    graded = {"severity": {"action": {"pull_over": "alarm"}}}
    action = {"pull_over": Sentence("Over."), "hold": Sentence("Hold.", "warning")}
    plain = spec(action=Output(("pull_over", "hold")))
    for speak, expected in (({"action": action}, ["alarm", "warning"]), ({}, ["alarm", "notice"])):
        table = sentences(msgspec.structs.replace(plain, **graded, speak=speak))
        assert [one.severity for one in table["action"].values()] == expected


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('[speak.mood]\nbad = { say = "x" }', "speak.mood is not one of the outputs that have labels"),
        ('[speak.action]\nfly = { say = "x" }', "speak.action.fly is not a label of outputs.action"),
        ('[speak.action]\nhold = { say = "at {speed}" }', "names {speed}, which is not one of the outputs"),
        ('[speak.action]\nhold = { say = "" }', "length >= 1"),
        ('[speak.action]\nhold = { say = "x", severity = "deadly" }', "Invalid enum value 'deadly'"),
        ('[speak.action]\nhold = { say = "x", louder = true }', "unknown field `louder`"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(table: str, problem: str, tmp_path: Path) -> None:
    written = (ROOT / "models" / "driving" / "model.toml").read_text().partition("# What `streamer speak`")[0]
    (tmp_path / "model.toml").write_text(written + table)
    with pytest.raises(ModelError) as refused:
        read_spec(tmp_path)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
