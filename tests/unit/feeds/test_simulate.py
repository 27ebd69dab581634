import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.events import AUDIO, END_TYPE, IMAGE, KIND_NAMES, TELEMETRY, TEXT, Telemetry, Transcript
from streamer.feeds import car, simulate
from streamer.feeds.producer import Outgoing, headers
from streamer.feeds.scenario import BEHIND, FACTS, LABELS, OCCUPANTS, SIRENS
from streamer.feeds.simulate import Drive, Options, Truth, label_of
from streamer.feeds.sound import RATE_HZ, Heard, Microphone
from streamer.settings import Settings

START_US = 1_700_000_000_000_000
S_US = 1_000_000


def drive(seed: int = 3, seconds: int = 12, **options: object) -> Drive:
    return Drive(seed, "car", START_US, seconds, Options(**options))  # type: ignore[arg-type]


def by_row(records: list[Outgoing]) -> dict[int, list[Outgoing]]:
    rows = defaultdict(list)
    for record in records:
        if record.ce_type is None:
            rows[record.row].append(record)
    return rows


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert list(drive(seed=5, seconds=3).outgoing()) == list(drive(seed=5, seconds=3).outgoing())
    assert list(drive(seed=5, seconds=3).outgoing()) != list(drive(seed=6, seconds=3).outgoing())


def test_records_come_in_due_order_and_the_end_record_last() -> None:
    records = list(drive().outgoing())
    assert all(earlier.due_us <= later.due_us for earlier, later in pairwise(records))
    assert [r.ce_type for r in records if r.ce_type is not None] == [END_TYPE]
    assert records[-1].ce_type == END_TYPE


def test_modalities_have_their_rates_and_tile_the_drive() -> None:
    rows = by_row(list(drive(seconds=5).outgoing()))
    assert [r.time_us for r in rows[IMAGE]] == [START_US + i * 100_000 for i in range(50)]
    assert [r.time_us for r in rows[AUDIO]] == [START_US + i * 200_000 for i in range(25)]
    assert {len(r.payload) for r in rows[AUDIO]} == {2 * RATE_HZ // 5}
    assert [r.time_us for r in rows[TELEMETRY]] == [START_US + i * 200_000 for i in range(25)]
    assert all(len(body.channels) == 3 for body in map(_telemetry, rows[TELEMETRY]))


def test_transcripts_are_due_after_they_were_spoken_and_stay_in_their_segment() -> None:
    one = drive(seconds=30)
    for record in by_row(list(one.outgoing()))[TEXT]:
        body = msgspec.json.decode(record.payload, type=Transcript)
        assert body.end is not None
        end_us = record.time_us + round(body.end * S_US)
        assert end_us + 300_000 <= record.due_us <= end_us + 1_200_000
        assert [t.start_us <= record.time_us < t.end_us == (end_us <= t.end_us) for t in one.truth()].count(True) <= 1
        assert body.words[-1].end <= body.end


def test_every_second_has_words_of_both_speakers() -> None:
    words = Counter(
        (record.time_us - START_US) // S_US + int((word.start + word.end) / 2)
        for record in by_row(list(drive(seconds=30).outgoing()))[TEXT]
        for word in msgspec.json.decode(record.payload, type=Transcript).words
    )
    assert set(words) == set(range(30))
    assert min(words.values()) >= 4


def test_truth_covers_the_drive_without_gaps_and_labels_follow_from_facts() -> None:
    truths = drive(seconds=120).truth()
    assert truths[0].start_us == START_US
    assert truths[-1].end_us == START_US + 120 * S_US
    assert all(earlier.end_us == later.start_us for earlier, later in pairwise(truths))
    for truth in truths:
        siren, obstacle, fast = FACTS[truth.label]
        assert (truth.siren, truth.obstacle) == (siren, obstacle)
        assert fast in (None, truth.fast)


def test_labels_are_drawn_evenly() -> None:
    counts = Counter(truth.label for seed in range(60) for truth in drive(seed=seed, seconds=60).truth())
    mean = sum(counts.values()) / len(LABELS)
    assert set(counts) == set(LABELS)
    assert all(0.7 * mean < count < 1.3 * mean for count in counts.values())


def test_a_siren_is_louder_in_its_band_than_a_drive_without() -> None:
    def band(siren: int | None) -> float:
        microphone = Microphone(1)
        second = np.concatenate([microphone.second(Heard(5.0, siren)) for _ in range(6)]).astype(float)
        spectrum = np.abs(np.fft.rfft(second)) ** 2
        hz = np.fft.rfftfreq(len(second), 1 / RATE_HZ)
        return float(spectrum[(hz > 400) & (hz < 1600)].sum() / spectrum.sum())

    assert all(band(siren) > 2 * band(None) for siren in range(len(SIRENS)))


def test_telemetry_tells_fast_from_slow() -> None:
    one = drive(seconds=60)
    for record in by_row(list(one.outgoing()))[TELEMETRY]:
        truth = next(t for t in one.truth() if t.start_us <= record.time_us < t.end_us)
        if record.time_us - truth.start_us > S_US:
            speed = np.mean(_telemetry(record).channels["speed"].values)
            assert (speed > 11) == truth.fast


def test_a_dead_modality_is_silent_from_then_on_and_the_others_go_on() -> None:
    rows = by_row(list(drive(seconds=6, dies=("audio", 2.0)).outgoing()))
    assert len(rows[AUDIO]) == 10
    assert len(rows[IMAGE]) == 60


def test_dropped_records_leave_gaps_in_the_sequence() -> None:
    frames = by_row(list(drive(seconds=10, drop=0.3).outgoing()))[IMAGE]
    assert 40 <= len(frames) <= 90
    assert all(
        a.sequence < b.sequence for a, b in pairwise(frames) if a.sequence is not None and b.sequence is not None
    )


def test_late_records_keep_their_event_time_and_come_in_due_order() -> None:
    punctual = {(r.row, r.sequence): r for r in drive(seconds=10).outgoing()}
    records = list(drive(seconds=10, late=0.2, late_ms=3000).outgoing())
    assert all(a.due_us <= b.due_us for a, b in pairwise(records))
    delays = Counter(r.due_us - punctual[r.row, r.sequence].due_us for r in records if r.ce_type is None)
    assert set(delays) == {0, 3_000_000}
    assert 0.1 < delays[3_000_000] / delays.total() < 0.3


def test_jitter_disorders_records() -> None:
    frames = by_row(list(drive(seconds=10, jitter_ms=300).outgoing()))[IMAGE]
    assert any(a.time_us > b.time_us for a, b in pairwise(frames))


@pytest.mark.parametrize(
    "options",
    [
        {"drop": 1.5},
        {"late": -0.1},
        {"jitter_ms": -1.0},
        {"frame_hz": 7},
        {"sensors": ("lidar",)},
        {"sensors": ()},
        {"sensors": ("can", "can")},
        {"dies": ("cabin_mic", 2.0)},
    ],
)
def test_impossible_options_are_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        drive(**options)
    assert "\n" not in str(refused.value)


def test_a_drive_sends_the_sensors_that_were_chosen_and_the_same_of_each_whatever_others_there_are() -> None:
    alone = by_row(list(drive(seconds=4, sensors=("imu",)).outgoing()))
    among = by_row(list(drive(seconds=4, sensors=("roof_mic", "imu")).outgoing()))
    assert set(alone) == {TELEMETRY}
    assert set(among) == {AUDIO, TELEMETRY}
    assert alone[TELEMETRY] == among[TELEMETRY]


SURROUND = {
    **{name: {"kind": KIND_NAMES[car.SENSORS[name].row]} for name in car.SETS["surround"]},
    **{name: {"enabled": False} for name in KIND_NAMES},
}


def test_a_record_names_its_sensor_unless_that_is_called_like_its_kind() -> None:
    records = drive(seconds=1, sensors=("telemetry", "can", "imu")).outgoing()
    named = Counter(dict(headers(r)).get("ce_sensor") for r in records if r.ce_type is None)
    assert named == {None: 5, b"can": 5, b"imu": 5}


def test_no_two_records_of_a_drive_are_the_same_event() -> None:
    events = [dict(headers(r)) for r in drive(seconds=2, sensors=car.SETS["all"]).outgoing() if r.ce_type is None]
    assert len({(event["ce_source"], event["ce_id"]) for event in events}) == len(events)


def test_cars_send_the_sensors_that_the_settings_declare() -> None:
    assert simulate.sensors_of(Settings(), None) == car.DEFAULT
    assert set(simulate.sensors_of(Settings(sensors=SURROUND), None)) == set(car.SETS["surround"])
    with_radar = {"radar": {"kind": "telemetry"}}
    assert "radar" not in simulate.sensors_of(Settings(sensors=with_radar), None)


def test_cars_send_the_sensors_of_a_set_or_those_that_are_named() -> None:
    settings = Settings(sensors=SURROUND)
    assert simulate.sensors_of(settings, "surround") == car.SETS["surround"]
    assert simulate.sensors_of(settings, "imu,camera_rear") == ("imu", "camera_rear")


@pytest.mark.parametrize("asked", ["surround", "all", "can,imu", "image,camera_rear"])
def test_sensors_that_are_not_declared_are_refused_with_a_setting_that_declares_them(asked: str) -> None:
    with pytest.raises(UsageError, match="do not declare") as refused:
        simulate.sensors_of(Settings(), asked)
    told = str(refused.value)
    assert "\n" not in told
    given = json.loads(told.partition("STREAMER_SENSORS='")[2].removesuffix("'"))
    settings = Settings(sensors=given)
    assert set(simulate.sensors_of(settings, asked)) == set(settings.sensor_set.names)


def test_a_sensor_that_the_car_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(UsageError, match="no sensor 'lidar'; it has: image, audio"):
        simulate.sensors_of(Settings(), "lidar")


def test_the_truth_has_the_label_of_each_output_that_drives_teach() -> None:
    for truth in drive(seconds=60).truth():
        assert truth.outputs == {"action": truth.label, "behind": truth.behind, "occupants": truth.occupants}
        assert (truth.behind in BEHIND, truth.occupants in OCCUPANTS) == (True, True)


def test_a_window_has_the_label_that_covers_most_of_it() -> None:
    truths = [Truth("car", 0, 10, "brake", False, True, True), Truth("car", 10, 20, "hold", True, False, False)]
    assert [label_of(truths, *window) for window in ((0, 10), (6, 12), (9, 14), (30, 40))] == [
        "brake",
        "brake",
        "hold",
        None,
    ]


def test_truth_survives_a_file(tmp_path: Path) -> None:
    truths = drive().truth()
    simulate.write_truth(tmp_path / "truth.jsonl", truths)
    assert simulate.read_truth(tmp_path / "truth.jsonl") == truths


def test_a_broken_truth_file_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    simulate.write_truth(path, drive().truth())
    path.write_bytes(path.read_bytes() + b'{"session": 1}\n')
    with pytest.raises(UsageError, match=f"line {len(drive().truth()) + 1} "):
        simulate.read_truth(path)


def _telemetry(record: Outgoing) -> Telemetry:
    return msgspec.json.decode(record.payload, type=Telemetry)
