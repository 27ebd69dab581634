"""Subtitles, GoPro's telemetry, tables and MCAP files, with their difficult cases."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Transcript
from streamer.feeds import replay
from streamer.feeds.replay import speech
from streamer.feeds.replay.message_fields import numbers
from streamer.feeds.replay.speech import Cue
from tests.harness import jpeg
from tests.recordings import BASE_NS, Log, by_row, events, pcm, samples, spans, texts

S_US = 1_000_000

# subtitles


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<i>go</i> <b>left</b>", "go left"),
        ("{\\an8}up here", "up here"),
        ("<v Mary>Hello <c.loud>there</c> &amp; you", "Hello there & you"),
        ("two\nlines\\Nand three", "two lines and three"),
        ("one <00:00:01.500>two", "one two"),
        ('<font color="#ff0000">red</font>', "red"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("{\\p1}m 0 0 l 100 0", ""),
    ],
)
def test_markup_is_taken_out_of_subtitles(marked: str, plain: str) -> None:
    assert speech.plain(marked) == plain


def test_subtitle_files_are_sent_alone_too(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>hello\n")
    (tmp_path / "b.srt").write_bytes("\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nhëllo\r\n".encode())
    assert texts(by_row(events(tmp_path / "a.vtt"))[TEXT]) == ["hello"]
    assert texts(by_row(events(tmp_path / "b.srt"))[TEXT]) == ["hëllo"]


def test_a_long_subtitle_is_cut_into_pieces_that_tile_it_and_keep_every_word() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away from a very old bear"
    found = list(speech.pieces(Cue(S_US, 9 * S_US, text)))
    assert " ".join(piece.text for piece in found) == text
    assert (found[0].start_us, found[-1].end_us) == (S_US, 9 * S_US)
    assert all(a.end_us == b.start_us for a, b in pairwise(found))
    assert max(piece.end_us - piece.start_us for piece in found) <= speech.LONGEST_US
    assert not any(piece.words for piece in found)  # an estimate is no measurement


def test_a_single_word_that_stands_long_is_repeated_as_long_as_it_stands() -> None:
    found = list(speech.pieces(Cue(0, 90 * S_US, "[music]")))
    assert {piece.text for piece in found} == {"[music]"}
    assert len(found) == 60


def test_subtitles_that_overlap_are_sent_as_they_end() -> None:
    cues = [Cue(0, 1_400_000, "long"), Cue(200_000, 500_000, "short"), Cue(1_000_000, 1_200_000, "middle")]
    sent = [msgspec.json.decode(r.payload, type=Transcript).text for r in speech.transcripts(cues, 2 * S_US)]
    assert sent == ["short", "middle", "long"]


def test_subtitles_end_with_the_recording() -> None:
    (sent,) = speech.transcripts([Cue(0, S_US, "in"), Cue(3 * S_US, 4 * S_US, "after")], 500_000)
    assert (sent.time_us, sent.due_us) == (0, 500_000)


# MCAP


def test_pictures_sound_texts_and_numbers_of_an_mcap_file(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    tone = (np.sin(np.arange(8000) / 7) * 9000).astype("<i2")
    imu, words = log.channel("/imu"), log.channel("/asr", "my.Words")
    for i in range(10):
        log.picture(i / 10, jpeg(i))
        log.sound(i / 10, tone[800 * i : 800 * (i + 1)].tobytes(), 8000)
        log.add(imu, i / 10, {"stamp": {"sec": 1, "nsec": 2}, "a": {"x": i, "y": 0.5}, "list": [1, 2], "name": "n"})
    log.add(words, 0.9, {"text": "turn left", "start": -0.5, "end": 0.0})
    recording = replay.open_all([log.finish()])
    rows = by_row(events(recording=recording))
    assert [round(a, 3) for a, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]
    assert rows[IMAGE][3].record.value == jpeg(3)
    assert np.array_equal(pcm(rows[AUDIO])[:, 0], tone)
    assert all(a[1] == b[0] for a, b in pairwise(spans(rows[AUDIO])))
    assert (texts(rows[TEXT]), spans(rows[TEXT])) == (["turn left"], [(0.4, 0.9)])
    measured = samples(rows[TELEMETRY])
    assert set(measured) == {"imu.a.x", "imu.a.y", "imu.list.0", "imu.list.1"}
    assert [v for _, v in measured["imu.a.x"]] == list(range(10))
    assert recording.utc_us == BASE_NS // 1000
    assert recording.length_us == 1_000_000


def test_a_message_of_one_number_is_a_channel_called_like_its_topic(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.add(log.channel("/car/speed"), 0, {"value": 3.5})
    assert samples(by_row(events(log.finish()))[TELEMETRY]) == {"car.speed": [(0.0, 3.5)]}


def test_long_lists_and_times_are_no_channels() -> None:
    body = {
        "ranges": [1.0] * 100,
        "stamp": {"sec": 1, "nanosec": 2},
        "ok": True,
        "deep": {"er": [{"x": 1}]},
        "no": None,
    }
    assert dict(numbers(body, set())) == {"ok": 1.0, "deep.er.0.x": 1.0}


def test_one_of_several_cameras_is_sent_and_the_others_are_told(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.picture(0, jpeg(1), "/front")
    log.picture(0, jpeg(2), "/rear")
    rear = log.channel("/rear")
    path = log.finish()
    recording = replay.open_all([path])
    assert [e.record.value for e in by_row(events(recording=recording))[IMAGE]] == [jpeg(1)]
    assert f"--stream {rear}" in " ".join(recording.notes)
    assert [e.record.value for e in by_row(events(path, streams=[rear]))[IMAGE]] == [jpeg(2)]
    with pytest.raises(UsageError, match="/front"):
        replay.open_all([path], replay.Options(streams=(77,)))


def test_broken_and_foreign_messages_are_left_out_and_told(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.picture(0, jpeg(1))
    log.picture(0.1, b"x", form="avif")
    log.add(log.channel("/camera"), 0.2, b"{broken")
    log.add(log.channel("/ros", "std_msgs/String", "cdr"), 0.3, b"abc")
    recording = replay.open_all([log.finish()])
    assert len(by_row(events(recording=recording))[IMAGE]) == 1
    notes = " ".join(recording.notes)
    assert all(word in notes for word in ("avif", "broken", "cdr", "/camera", "/ros"))


@pytest.mark.parametrize("options", [{"use_chunking": False}, {"use_summary_offsets": False, "index_types": 0}])
def test_a_file_without_an_index_is_read_in_its_own_order(options: dict[str, object], tmp_path: Path) -> None:
    from mcap.writer import IndexType

    if "index_types" in options:
        options["index_types"] = IndexType.NONE
    log = Log(tmp_path / "a.mcap", **options)
    for i in range(20):
        log.picture(i / 10, jpeg(i))
    assert len(by_row(events(log.finish()))[IMAGE]) == 20


def test_a_file_that_is_cut_off_is_sent_up_to_there(tmp_path: Path) -> None:
    log = Log(tmp_path / "whole.mcap", chunk_size=10_000)
    for i in range(50):
        log.picture(i / 10, jpeg(i))
    raw = log.finish().read_bytes()
    (tmp_path / "cut.mcap").write_bytes(raw[: len(raw) // 2])
    recording = replay.open_all([tmp_path / "cut.mcap"])
    assert 10 < len(by_row(events(recording=recording))[IMAGE]) < 40
    assert "could not be read to its end" in " ".join(recording.notes)


def test_protobuf_messages_are_read_with_the_schema_in_the_file(tmp_path: Path) -> None:
    T = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", syntax="proto3", package="foxglove")
    stamp = file.message_type.add(name="Stamp")
    stamp.field.add(name="seconds", number=1, type=T.TYPE_INT64, label=T.LABEL_OPTIONAL)
    stamp.field.add(name="nanos", number=2, type=T.TYPE_INT32, label=T.LABEL_OPTIONAL)
    image = file.message_type.add(name="CompressedImage")
    own = T.TYPE_MESSAGE
    image.field.add(name="timestamp", number=1, type=own, type_name=".foxglove.Stamp", label=T.LABEL_OPTIONAL)
    image.field.add(name="data", number=2, type=T.TYPE_BYTES, label=T.LABEL_OPTIONAL)
    image.field.add(name="format", number=3, type=T.TYPE_STRING, label=T.LABEL_OPTIONAL)
    state = file.message_type.add(name="State")
    state.field.add(name="speed", number=1, type=T.TYPE_DOUBLE, label=T.LABEL_OPTIONAL)
    state.field.add(name="wheels", number=2, type=T.TYPE_FLOAT, label=T.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kinds = {
        n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"foxglove.{n}"))
        for n in ("CompressedImage", "State")
    }
    definition = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    log = Log(tmp_path / "a.mcap")
    camera = log.channel("/camera", "foxglove.CompressedImage", "protobuf", definition)
    car = log.channel("/car", "foxglove.State", "protobuf", definition)
    shot = {"seconds": BASE_NS // 10**9, "nanos": 50_000_000}
    log.add(car, 0, kinds["State"](speed=0.0, wheels=[1.0, 2.0]).SerializeToString())
    log.add(camera, 0.1, kinds["CompressedImage"](timestamp=shot, data=jpeg(1), format="jpeg").SerializeToString())
    log.add(car, 0.1, b"\xff\xff")
    recording = replay.open_all([log.finish()])
    rows = by_row(events(recording=recording))
    assert (spans(rows[IMAGE]), rows[IMAGE][0].record.value) == ([(0.05, 0.05)], jpeg(1))
    assert samples(rows[TELEMETRY]) == {"car.speed": [(0, 0)], "car.wheels.0": [(0, 1)], "car.wheels.1": [(0, 2)]}
    assert "/car are broken" in " ".join(recording.notes)
