"""Films, sound and the files beside them: all records sent are decoded as in the pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
import soundfile

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, EventType, Transcript
from streamer.feeds import replay
from tests.recordings import START_US, by_row, events, film, pcm, samples, spans, texts, wav


def test_a_film_is_sent_frame_by_frame_with_its_sound_and_subtitles(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2, cues=[(0.2, 0.9, "first <i>line</i>"), (1.0, 1.8, "second")])
    found = events(path)
    rows = by_row(found)
    assert spans(rows[IMAGE]) == [(i / 10, i / 10) for i in range(20)]
    assert pcm(rows[AUDIO]).shape == (88_200, 1)
    assert {e.params["rate"] for e in rows[AUDIO]} == {"44100"}
    assert all(a[1] == b[0] for a, b in pairwise(spans(rows[AUDIO])))
    assert texts(rows[TEXT]) == ["first line", "second"]
    assert spans(rows[TEXT]) == [(0.2, 0.9), (1.0, 1.8)]
    assert [e.type for e in found].index(EventType.END) == len(found) - 1


def test_sequences_count_up_in_each_modality(tmp_path: Path) -> None:
    for found in by_row(events(film(tmp_path / "film.mp4"))).values():
        assert [e.sequence for e in found] == list(range(len(found)))


def test_frames_keep_their_brightness_from_black_to_white(tmp_path: Path) -> None:
    frames = by_row(events(film(tmp_path / "film.mp4", sound=False)))[IMAGE]
    brightness = [simplejpeg.decode_jpeg(e.record.value).mean() for e in frames]
    assert brightness[0] < 6
    assert brightness[-1] > 249
    assert brightness == sorted(brightness)


def test_a_film_that_was_taken_sideways_is_turned(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", size=(64, 48), rotation=90)
    assert simplejpeg.decode_jpeg(by_row(events(path))[IMAGE][0].record.value).shape == (64, 48, 3)


def test_subtitles_beside_a_film_replace_those_inside(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", cues=[(0.2, 0.9, "inside")])
    (tmp_path / "film.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nbeside\n")
    assert texts(by_row(events(path))[TEXT]) == ["beside"]
    assert texts(by_row(events(path, tmp_path / "film.srt"))[TEXT]) == ["beside"]
    track = next(s.index for s in av.open(str(path)).streams if s.type == "subtitle")
    assert texts(by_row(events(path, streams=[track]))[TEXT]) == ["inside"]


def test_a_long_film_is_read_as_it_is_sent(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2)
    records = replay.open_all([path]).outgoing("test", START_US)
    assert next(records).row == IMAGE
    assert isinstance(records, Generator)
    records.close()  # nothing waits for the rest


def test_sound_files_are_sent_sample_for_sample(tmp_path: Path) -> None:
    noise = wav(tmp_path / "a.wav", seconds=1.25, rate_hz=11_025, channels=2)
    rows = by_row(events(tmp_path / "a.wav"))
    assert np.array_equal(pcm(rows[AUDIO], 2), noise)
    assert [round(b - a, 3) for a, b in spans(rows[AUDIO])] == [0.2] * 6 + [0.05]
    soundfile.write(tmp_path / "b.flac", noise, 11_025)
    assert np.array_equal(pcm(by_row(events(tmp_path / "b.flac"))[AUDIO], 2), noise)


def test_compressed_and_float_sound_keeps_its_length_and_level(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(16_000) / 10)
    for name, options in {"a.ogg": {}, "b.wav": {"subtype": "FLOAT"}, "c.flac": {"subtype": "PCM_24"}}.items():
        soundfile.write(tmp_path / name, tone, 16_000, **options)
        heard = pcm(by_row(events(tmp_path / name))[AUDIO])
        assert 0 <= len(heard) - 16_000 <= 128  # Vorbis pads its last block
        assert 0.45 * 32_768 < np.sqrt(2 * np.mean(heard.astype(float) ** 2)) < 0.55 * 32_768


def test_words_beside_a_sound_file_are_transcripts_with_word_times(tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", seconds=2)
    words = [
        {"b": 0.0, "d": 0.2, "t": "<sil>"},
        {"b": 0.2, "d": 0.3, "t": "turn(2)"},
        {"b": 0.5, "d": 0.3, "t": "left"},
        {"b": 1.6, "d": 0.3, "t": "now"},
    ]
    (tmp_path / "talk.json").write_text(json.dumps({"b": 0.0, "d": 1.9, "t": "turn left now", "w": words}))
    said = by_row(events(tmp_path / "talk.wav"))[TEXT]
    assert texts(said) == ["turn left", "now"]
    assert spans(said) == [(0.2, 0.8), (1.6, 1.9)]
    body = said[0].body
    assert isinstance(body, Transcript)
    assert [(w.text, w.start, w.end) for w in body.words] == [("turn", 0.0, 0.3), ("left", 0.3, 0.6)]


@pytest.mark.parametrize("shape", ["list of words", "a line an utterance"])
def test_word_timings_come_in_several_shapes(shape: str, tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", seconds=2)
    words = [{"b": 0.1, "d": 0.2, "t": "turn"}, {"b": 0.4, "d": 0.2, "t": "left"}]
    lines = json.dumps(words) if shape == "list of words" else "\n".join(json.dumps({**w, "w": [w]}) for w in words)
    (tmp_path / "talk.json").write_text(lines)
    assert " ".join(texts(by_row(events(tmp_path / "talk.wav"))[TEXT])) == "turn left"


def test_several_paths_are_one_session(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=1, sound=False)
    table = tmp_path / "car.csv"
    table.write_text("time_s,speed [m/s]\n" + "".join(f"{i / 10},{i}\n" for i in range(15)))
    recording = replay.open_all([path, table])
    found = events(recording=recording)
    rows = by_row(found)
    assert (len(rows[IMAGE]), len(samples(rows[TELEMETRY])["speed"])) == (10, 15)
    assert recording.length_us == 1_400_000
    assert [e.type for e in found].count(EventType.END) == 1


# choosing tracks


def two_sound_tracks(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("aac", rate=rate, layout="mono") for rate in (16_000, 32_000)]
        for track in tracks:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 32_000), np.int16), "s16", "mono")
            silence.sample_rate = track.rate
            silence.pts = 0
            container.mux(track.encode(silence))
            container.mux(track.encode())
    return path


def test_a_track_is_chosen_by_its_number(tmp_path: Path) -> None:
    path = two_sound_tracks(tmp_path / "two.m4a")
    assert {by_row(events(path, streams=[n]))[AUDIO][0].params["rate"] for n in (0, 1)} == {"16000", "32000"}


@pytest.mark.parametrize("streams", [[7], [-1], [0, 1]])
def test_tracks_that_cannot_be_sent_are_refused_with_what_there_is(streams: list[int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="audio") as refused:
        replay.open_all([two_sound_tracks(tmp_path / "two.m4a")], replay.Options(streams=tuple(streams)))
    assert "\n" not in str(refused.value)


def test_choosing_a_track_where_there_are_none_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "car.csv"
    table.write_text("t,speed\n0,1\n")
    with pytest.raises(UsageError, match="--stream"):
        replay.open_all([table], replay.Options(streams=(1,)))


# bad input


@pytest.mark.parametrize("name", ["no.mp4", "folder", "notes.txt", "broken.mp4", "empty.wav", "broken.mcap", "cut.mp4"])
def test_what_is_no_recording_is_refused_in_one_line_with_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for broken in ("notes.txt", "broken.mp4", "broken.mcap"):
        (tmp_path / broken).write_bytes(b"nothing of use" * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(film(tmp_path / "whole.mp4").read_bytes()[:3000])
    with pytest.raises(UsageError) as refused:
        events(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", '{"b": 0'),
        (".json", '[{"b": 1.0, "d": -0.5, "t": "x"}]'),
        (".srt", "1\n00:00:00,500 -> 00:00:01,000\nno arrow\n"),
        (".srt", "1\n00:00:02,000 --> 00:00:01,000\nbackwards\n"),
        (".vtt", "no header"),
        (".vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\nbackwards\n"),
    ],
)
def test_a_broken_file_beside_a_recording_is_refused_with_its_name(suffix: str, content: str, tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", seconds=3)
    beside = (tmp_path / "talk.wav").with_suffix(suffix)
    beside.write_text(content)
    with pytest.raises(UsageError) as refused:
        events(tmp_path / "talk.wav")
    assert str(beside) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_broken_packets_are_left_out_and_told(tmp_path: Path) -> None:
    whole = film(tmp_path / "film.mp4", seconds=4, sound=False, size=(320, 240))
    raw = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    for pos, size in packets[12:20]:
        raw[pos : pos + size] = b"\xff" * size
    (tmp_path / "dented.mp4").write_bytes(raw)
    recording = replay.open_all([tmp_path / "dented.mp4"])
    rows = by_row(events(recording=recording))
    assert 20 <= len(rows[IMAGE]) <= 40
    assert len(rows[IMAGE]) == 40 or "broken packets" in " ".join(recording.notes)


def test_sound_at_a_rate_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    wav(tmp_path / "slow.wav", rate_hz=800)
    with pytest.raises(UsageError, match="800 samples a second"):
        replay.open_all([tmp_path / "slow.wav"])


# absolute times


def test_a_film_tells_when_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = "2024-05-01T12:00:00Z"
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height = 64, 48
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(video.encode())
    assert replay.open_all([path]).utc_us == 1_714_564_800_000_000


# real recordings


def test_a_gopro_film_has_frames_sound_and_telemetry_in_every_second(data: Path) -> None:
    path = data / "gopro" / "max-heromode.mp4"
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert recording.length_us == 10_543_000
    assert len(rows[IMAGE]) == 315
    assert len(pcm(rows[AUDIO], 2)) == 504_832
    measured = samples(rows[TELEMETRY])
    seconds = range(math.ceil(10.543))
    for row in (IMAGE, AUDIO, TELEMETRY):
        assert {int(begin) for begin, _ in spans(rows[row])} == set(seconds)
    for key, rate_hz in {"ACCL.x": 198, "GYRO.z": 198, "GPS5.lat": 18}.items():
        times = [t for t, _ in measured[key]]
        assert times == sorted(times)
        assert {int(t) for t in times} == set(seconds)
        assert abs(len(times) / 10.543 - rate_hz) < 2
    gravity = np.sqrt(sum(np.mean([v for _, v in measured[f"ACCL.{axis}"]]) ** 2 for axis in "xyz"))
    assert 8.5 < gravity < 11
    assert abs(np.mean([v for _, v in measured["GPS5.lat"]]) - 33.1268) < 0.001
    assert abs(np.mean([v for _, v in measured["GPS5.lon"]]) + 117.3273) < 0.001
    units = {n: c.unit for e in rows[TELEMETRY] for n, c in e.body.channels.items()}  # type: ignore[union-attr]
    assert [units[n] for n in ("ACCL.x", "GYRO.x", "GPS5.lat", "GPS5.speed_2d")] == ["m/s²", "rad/s", "deg", "m/s"]
    assert recording.utc_us == 1_574_120_715_458_413  # GPS: 2019-11-18T23:45:15Z


def test_the_best_tracks_of_a_film_with_several_are_sent_with_its_subtitles(data: Path) -> None:
    path = data / "nasa" / "nasa_13013.mp4"
    rows = by_row(events(path))
    assert len(rows[IMAGE]) == 390
    assert len(pcm(rows[AUDIO], 2)) == 208_896
    assert " ".join(texts(rows[TEXT])[:3]) == "NAR: This is the optical and science segment of the Webb"
    covered = {second for begin, end in spans(rows[TEXT]) for second in range(int(begin), math.ceil(end))}
    assert covered == set(range(14))
    assert max(end - begin for begin, end in spans(rows[TEXT])) <= 1.5
    other = by_row(events(path, streams=[0, 1]))
    assert len(other[IMAGE]) == 325
    assert {e.params["rate"] for e in other[AUDIO]} == {"8000"}


def test_a_silent_sound_track_is_sent(data: Path) -> None:
    rows = by_row(events(data / "driving" / "solidWhiteRight.mp4"))
    assert len(rows[IMAGE]) == 221
    heard = pcm(rows[AUDIO], 2)
    assert len(heard) == 8.84 * 48_000
    assert not heard.any()


def test_speech_is_sent_with_its_words(data: Path) -> None:
    path = data / "librivox" / "sense_and_sensibility_01_austen_64kb-0870.wav"
    rows = by_row(events(path))
    assert len(pcm(rows[AUDIO])) == 113_600
    assert " ".join(texts(rows[TEXT])) == path.with_suffix(".txt").read_text().strip()
    assert all(isinstance(e.body, Transcript) and e.body.words for e in rows[TEXT])


def test_films_without_frame_times_in_the_container_are_sent(data: Path) -> None:
    rows = by_row(events(data / "grid" / "bbaf2n.mpg"))
    assert len(rows[IMAGE]) == 75
    assert abs(len(pcm(rows[AUDIO], 2)) / 44_100 - 2.98) < 0.01


def test_every_kind_that_is_known_is_listed_where_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError) as refused:
        replay.open_all([tmp_path / "notes.txt"])
    assert all(ending in str(refused.value).split() for ending in (".mp4", ".flac", ".csv", ".mcap", ".srt", ".vtt"))
