"""Films and sound as cameras, phones, recorders and players leave them: pictures, sound and words where they belong."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TEXT, Event, Transcript
from streamer.feeds import replay
from streamer.feeds.replay import Options, Stretch
from streamer.feeds.replay.media import captions, tone
from streamer.feeds.replay.media.sound import Steady, stretched
from streamer.feeds.replay.media.tracks import Tracks
from tests.films import HEIGHT, WIDTH, bar, beeps, mono, patched, tracks, video, with_matrix
from tests.recordings import by_row, events, pcm, spans, texts, wav

S_US = 1_000_000


def shown(event: Event) -> Any:
    """A picture that was sent [H, W, 3]."""
    return simplejpeg.decode_jpeg(event.record.value)


def times(found: list[Event]) -> list[float]:
    return [begin for begin, _ in spans(found)]


def heard_s(found: list[Event]) -> float:
    """Seconds of sound that was sent."""
    return sum(end - begin for begin, end in spans(found))


def notes(*paths: Path) -> str:
    """What is noted when recordings are sent."""
    recording = replay.open_all(paths)
    events(recording=recording)
    return "\n".join(recording.notes)


# times


@pytest.mark.parametrize("name", ["a.mp3", "a.ts", "a.mpg", "a.flv", "a.ogg", "a.m4a", "a.mkv", "a.aac"])
def test_a_recording_begins_at_0(name: str, tmp_path: Path) -> None:
    path, suffix = tmp_path / name, name[1:]
    if suffix in (".ts", ".mpg", ".flv", ".mkv"):
        codec = {".mpg": "mpeg2video"}.get(suffix, "libx264")
        video(path, 75, 25, codec, tone=True, sound="mp2" if suffix == ".mpg" else "aac", rate_hz=44_100)
    elif suffix == ".ogg":
        soundfile.write(path, np.sin(np.arange(132_300) / 6) / 2, 44_100)
    else:
        with av.open(str(path), "w") as container:
            track = container.add_stream("libmp3lame" if suffix == ".mp3" else "aac", rate=44_100, layout="mono")
            tone_S = (np.sin(np.arange(132_300) / 6) * 9000).astype(np.int16)
            container.mux([*track.encode(mono(tone_S, 44_100)), *track.encode()])
    rows = by_row(events(path))
    assert min(begin for found in rows.values() for begin in times(found)) == 0.0
    assert abs(heard_s(rows[AUDIO]) - 3) < 0.1
    assert abs(replay.open_all([path]).length_us / S_US - 3) < 0.15


def test_pictures_with_b_frames_in_avi_are_in_order(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 60, 30, options={"bf": "3", "b_strategy": "0"})
    found = by_row(events(path))[IMAGE]
    assert np.allclose(times(found), np.arange(60) / 30, atol=1e-5)
    brightness = [shown(event)[40, 80].mean() for event in found]
    assert brightness == sorted(brightness)


@pytest.mark.parametrize("ending", ["ts", "mpg"])
@pytest.mark.parametrize("later_s", [0, 3600], ids=["clock restarts", "clock jumps"])
def test_joined_pieces_follow_each_other(ending: str, later_s: int, tmp_path: Path) -> None:
    codec, sound = ("libx264", "aac") if ending == "ts" else ("mpeg2video", "mp2")
    pieces = [
        video(
            tmp_path / f"{n}.{ending}", 75, 25, codec, tone=True, sound=sound, rate_hz=44_100,
            mux={"output_ts_offset": str(n * later_s)},
        )
        for n in range(3)
    ]  # fmt: skip
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert abs(recording.length_us / S_US - 9) < 0.2
    pictures = times(rows[IMAGE])
    assert len(pictures) == 225
    assert np.allclose(np.diff(pictures), 1 / 25, atol=0.002)
    assert pictures[0] < 0.1
    sounds = spans(rows[AUDIO])
    assert all(-1e-6 <= later[0] - earlier[1] < 0.11 for earlier, later in pairwise(sounds))
    assert abs(sounds[-1][1] - 9) < 0.2


def test_sound_that_pauses_for_long_stays_with_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "muted.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track = container.add_stream("mp2", rate=48_000, layout="mono")
        for number in range(60):
            picture = av.VideoFrame.from_ndarray(bar(number, 60), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 2)
            container.mux(stream.encode(picture))
            if number < 8 or number >= 50:
                heard = mono(np.zeros(24_000, np.int16), 48_000)
                heard.pts = number * 24_000
                container.mux(track.encode(heard))
        container.mux([*stream.encode(), *track.encode()])
    rows = by_row(events(path))
    assert len(rows[IMAGE]) == 60
    begins = np.array(times(rows[AUDIO]))
    assert not ((begins > 4.3) & (begins < 24.8)).any()
    assert spans(rows[AUDIO])[-1][1] == pytest.approx(30, abs=0.3)


@pytest.mark.parametrize("heard_hz", [8080, 7920, 8400, 7600])
def test_sound_of_a_fast_or_slow_clock_stays_with_the_picture(heard_hz: int, tmp_path: Path) -> None:
    path = beeps(tmp_path / "a.mkv", 30, heard_hz)
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert abs(heard_s(rows[AUDIO]) - 30) < 0.1
    loud = np.zeros(31 * 8000, bool)
    for event, (begin, _) in zip(rows[AUDIO], spans(rows[AUDIO]), strict=True):
        samples = np.abs(pcm([event])[:, 0]) > 3000
        loud[round(begin * 8000) :][: len(samples)] |= samples
    at = np.flatnonzero(loud)
    onsets = np.concatenate([at[:1], at[1:][np.diff(at) > 4000]]) / 8000
    assert len(onsets) == 30
    assert np.abs(onsets - np.arange(30)).max() < 0.1
    (said,) = [note for note in recording.notes if "against the film" in note]
    assert ("fast" if heard_hz > 8000 else "slow") in said


def test_sound_that_jitters_is_left_as_it_is() -> None:
    steady = Steady(8000)
    samples = np.arange(800, dtype=np.int16)[:, None]
    for late_us in (-39_000, 0, 39_000):
        fitted, time_us = steady.fit(samples, S_US + late_us, S_US)
        assert np.array_equal(fitted, samples)
        assert time_us == S_US + late_us
    assert list(steady.notes(1)) == []


def test_sound_that_comes_twice_is_sent_once_and_noted() -> None:
    steady = Steady(8000)
    samples = np.arange(8000, dtype=np.int16)[:, None]
    fitted, time_us = steady.fit(samples, 0, 500_000)
    assert (len(fitted), fitted[0, 0], time_us) == (4000, 4000, 500_000)
    assert "0.50 s of sound of track 1" in " ".join(steady.notes(1))


def test_sound_before_the_start_is_cut_off_and_noted() -> None:
    steady = Steady(8000)
    fitted, time_us = steady.fit(np.arange(8000, dtype=np.int16)[:, None], -250_000, None)
    assert (len(fitted), fitted[0, 0], time_us) == (6000, 2000, 0)
    assert "0.25 s of sound of track 1 before the start" in " ".join(steady.notes(1))


def test_stretched_sound_keeps_its_shape() -> None:
    wave = (np.sin(np.arange(1000) / 20) * 10_000).astype(np.int16)[:, None]
    longer = stretched(wave, 1100)
    assert longer.shape == (1100, 1)
    places = (np.arange(1100) + 0.5) / 1.1 - 0.5
    assert np.abs(longer[5:-5, 0] - np.sin(places / 20)[5:-5] * 10_000).max() < 100


@pytest.mark.parametrize(("name", "length"), [("zero.mp4", 0), ("milliseconds.mp4", 4000), ("long.mp4", 2**31 - 1)])
def test_a_wrong_length_in_the_header_cuts_off_nothing(name: str, length: int, tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", 40, tone=True)
    path = patched(whole, name, b"mdhd", 16, struct.pack(">I", length))
    path.with_suffix(".srt").write_text("1\n00:00:03,200 --> 00:00:03,900\nat the end\n")
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert abs(recording.length_us / S_US - 4) < 0.05
    assert len(rows[IMAGE]) == 40
    assert abs(heard_s(rows[AUDIO]) - 4) < 0.05
    assert texts(rows[TEXT]) == ["at the end"]


@pytest.mark.parametrize("length", [0, 2**32 - 1])
def test_all_samples_of_a_wav_file_that_was_streamed_are_sent(length: int, tmp_path: Path) -> None:
    noise = wav(tmp_path / "a.wav", seconds=1.01)
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[4:8] = raw[40:44] = struct.pack("<I", length)
    (tmp_path / "a.wav").write_bytes(raw)
    assert np.array_equal(pcm(by_row(events(tmp_path / "a.wav"))[AUDIO]), noise)


def test_what_an_edit_list_leaves_out_is_not_sent(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", 30, options={"bf": "2"}, tone=True)
    raw, at = bytearray(whole.read_bytes()), -1
    for ticks in (2048 + 10_240 + 500, 1024 + 16_000 + 800):  # 1.05 s into either track, amid a group of pictures
        at = raw.find(b"elst", at + 1)
        raw[at + 12 : at + 20] = struct.pack(">II", 1900, ticks)
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(raw)
    rows = by_row(events(path))
    assert min(begin for found in rows.values() for begin in times(found)) == 0.0
    assert len(rows[IMAGE]) in (19, 20)
    assert shown(rows[IMAGE][0])[40, 80].mean() > 40 + 160 * 9 // 29
    assert abs(heard_s(rows[AUDIO]) - 1.9) < 0.1


def test_captions_beside_a_chained_ogg_file_are_sent_to_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "link.ogg", np.sin(np.arange(48_000) / 6) / 2, 16_000)
    path = tmp_path / "talk.ogg"
    path.write_bytes((tmp_path / "link.ogg").read_bytes() * 2)
    path.with_suffix(".srt").write_text("1\n00:00:04,500 --> 00:00:05,500\nsecond link\n")
    rows = by_row(events(path))
    assert abs(heard_s(rows[AUDIO]) - 6) < 0.1
    assert texts(rows[TEXT]) == ["second link"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mpg", "a.flv", "a.wav"])
@pytest.mark.parametrize("part", [0.35, 0.6, 0.93])
def test_of_a_film_that_is_cut_inside_a_frame_all_before_is_sent(name: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.wav":
        wav(path, seconds=4)
    else:
        codec, sound = {".mpg": ("mpeg1video", "mp2"), ".avi": ("mpeg4", "libmp3lame")}.get(
            path.suffix, ("libx264", "aac")
        )
        noise = np.random.default_rng(0)
        video(
            path, 120, 30, codec, tone=True, sound=sound, rate_hz=44_100,
            picture=lambda n, of: noise.integers(0, 255, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1),
            mux={"movflags": "faststart"} if name == "a.mp4" else {},
        )  # fmt: skip
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part) | 1])
    rows = by_row(events(path))
    if name != "a.wav":
        assert 120 * part * 0.65 < len(rows[IMAGE]) <= 120
    assert 4 * part * 0.7 < heard_s(rows[AUDIO]) < 4.1
    if name == "a.mp4" or (name == "a.mkv" and part < 0.8):
        assert "cut off" in notes(path)


# pictures


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1),
        (0, 1, -1, 0), (0, -1, 1, 0), (0, 1, 1, 0), (0, -1, -1, 0),
    ],
)  # fmt: skip
def test_the_whole_display_matrix_is_applied(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    a, b, c, d = matrix
    path = with_matrix(video(tmp_path / "plain.mp4", 3), "turned.mp4", matrix)
    picture = shown(by_row(events(path))[IMAGE][0])
    height, width = (WIDTH, HEIGHT) if b else (HEIGHT, WIDTH)
    assert picture.shape == (height, width, 3)
    # the bar lies along the left part of the top edge: its middle, seen from the middle of the picture
    x, y = -WIDTH // 3, -HEIGHT // 2 + 4
    right, down = a * x + c * y, b * x + d * y
    assert picture[height // 2 + down, width // 2 + right].min() > 200
    grey_right, grey_down = a * 20 + c * 10, b * 20 + d * 10
    assert abs(int(picture[height // 2 + grey_down, width // 2 + grey_right, 1]) - 40) < 12


def hdr(path: Path, transfer: int, code: tuple[float, float, float]) -> Path:
    """A film of one colour in BT.2020, as HDR phones write it."""
    picture = np.broadcast_to(np.round(np.array(code) * 255).astype(np.uint8), (HEIGHT, WIDTH, 3))

    def tagged(stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        tagged(stream)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        container.mux([*stream.encode(frame.reformat(format="yuv420p", dst_colorspace=9)), *stream.encode()])
    return path


PQ, HLG = 16, 18


@pytest.mark.parametrize(
    ("transfer", "name", "code"),
    # of sRGB (204, 0, 0) with white at 203 cd/m²: BT.709 to BT.2020, then the transfer functions of BT.2100
    [(PQ, "PQ", (0.4814, 0.2846, 0.1723)), (HLG, "HLG", (0.5925, 0.2108, 0.1021))],
)
def test_hdr_is_tone_mapped(transfer: int, name: str, code: tuple[float, float, float], tmp_path: Path) -> None:
    path = hdr(tmp_path / "a.mp4", transfer, code)
    picture = shown(by_row(events(path))[IMAGE][0])
    assert np.abs(picture[30, 40].astype(int) - (204, 0, 0)).max() <= 20
    assert f"HDR ({name})" in notes(path)


@pytest.mark.parametrize("nits", [1.0, 10.0, 50.0, 85.0])
def test_dark_and_middle_tones_of_hdr_stay_as_they_are(nits: float) -> None:
    assert tone.bent(np.array([nits]))[0] == pytest.approx(nits, rel=1e-6)


def test_highlights_of_hdr_are_bent_not_cut_off() -> None:
    nits = np.array([100.0, 203.0, 400.0, 700.0, 1000.0, 5000.0])
    bent = tone.bent(nits)
    assert (np.diff(bent)[:4] > 0.5).all()
    assert bent[4] == pytest.approx(203, rel=1e-3)
    assert bent[5] == pytest.approx(203, rel=1e-3)


def test_transfer_functions_of_hdr_are_those_of_the_recommendations() -> None:
    # BT.2408, table 1: a white page is 58 % in PQ and 75 % in HLG, at 203 cd/m²
    assert tone.pq_nits(np.array([0.58]))[0] == pytest.approx(203, rel=0.01)
    assert tone.hlg_nits(np.full((1, 3), 0.75))[0] == pytest.approx([203] * 3, rel=0.01)
    assert tone.pq_nits(tone.pq_code(np.array([0.1, 5.0, 1000.0]))) == pytest.approx([0.1, 5.0, 1000.0], rel=1e-6)


@pytest.mark.parametrize(("ratio", "size"), [((16, 15), (102, 64)), ((2, 1), (192, 64)), ((3, 4), (96, 85))])
def test_pixels_are_made_square(ratio: tuple[int, int], size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"x264-params": f"sar={ratio[0]}\\:{ratio[1]}"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(bar(0, 1), "rgb24")), *stream.encode()])
    picture = shown(by_row(events(path))[IMAGE][0])
    assert picture.shape[1::-1] == size
    assert f"not square: its pictures are stretched from 96 × 64 to {size[0]} × {size[1]}" in notes(path)


def woven(number: int, count: int) -> Any:
    """A bar that moves to the right between the even lines of a picture and the odd ones."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for field in (0, 1):
        left = 8 + 4 * (2 * number + field)
        picture[field::2, left : left + 16] = 220
    return picture


def test_interlaced_pictures_are_made_whole(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", 8, 25, options={"x264-params": "tff=1", "crf": "5"}, picture=woven)
    found = by_row(events(path))[IMAGE]
    assert np.allclose(times(found), np.arange(8) / 25)
    combed = [np.abs(np.diff(shown(event)[:, :, 1].astype(int), axis=0)).mean() for event in found]
    assert np.abs(np.diff(woven(0, 8)[:, :, 1].astype(int), axis=0)).mean() > 15
    assert max(combed) < 3
    assert "track 0 is interlaced: its pictures are deinterlaced" in notes(path)


def test_an_interlaced_film_whose_pictures_change_in_size_is_sent_whole(tmp_path: Path) -> None:
    def larger(stream: Any) -> None:
        stream.width, stream.height = 128, 96

    options = {"x264-params": "tff=1"}
    pieces = [
        video(tmp_path / "1.ts", 25, 25, options=options),
        video(tmp_path / "2.ts", 25, 25, options=options, set_up=larger),
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    found = by_row(events(path))[IMAGE]
    assert [shown(event).shape[:2] for event in found] == [(64, 96)] * 25 + [(96, 128)] * 25
    assert np.allclose(np.diff(times(found)), 1 / 25, atol=1e-4)


@pytest.mark.parametrize("options", [{"bf": "3", "b_strategy": "0"}, {"bf": "0"}, {"x264-params": "tff=1:bframes=2"}])
@pytest.mark.parametrize("begin_us", [0, 1_234_567])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_rate_sends_the_same_pictures_that_would_be_chosen_of_all(
    options: dict[str, str], begin_us: int, name: str, tmp_path: Path
) -> None:
    path = video(tmp_path / name, 90, 30, options=options)
    rate_hz = 7.0

    def sent(part: replay.Part) -> dict[int, bytes]:
        return {record.time_us: record.payload for record in part.records(begin_us) if record.time_us >= begin_us}

    every = replay.open_all([path]).parts[0].part
    thinned = replay.open_all([path], Options(), Stretch(rate_hz=rate_hz)).parts[0].part
    of_all, found = sent(every), sent(thinned)
    choice = replay.part.Thinned(rate_hz)
    assert found == {time_us: payload for time_us, payload in of_all.items() if choice.keeps(time_us - begin_us)}
    assert len(found) == pytest.approx((3 - begin_us / S_US) * rate_hz, abs=2)


def test_pictures_that_are_not_sent_and_not_referred_to_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "a.mp4", 90, 30, options={"bf": "2", "b_strategy": "0", "b-pyramid": "none"})
    decoded = 0

    def counted(self: Tracks, index: int, packets: Iterable[Any]) -> Iterator[Any]:
        nonlocal decoded
        for picture in whole(self, index, packets):
            decoded += 1
            yield picture

    whole = Tracks.decoded
    monkeypatch.setattr(Tracks, "decoded", counted)
    part = replay.open_all([path], Options(), Stretch(rate_hz=10)).parts[0].part
    assert len(list(part.records(0))) == 30
    assert 30 <= decoded <= 60


# tracks and files beside a film


def test_a_caption_track_of_pictures_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        captions_track = container.add_stream("dvbsub")
        packet = av.Packet(b"\x20\x00\x0f")
        packet.stream, packet.time_base = captions_track, Fraction(1, 1000)
        packet.pts, packet.dts, packet.duration = 0, 0, 100
        container.mux([packet, *stream.encode(av.VideoFrame.from_ndarray(bar(0, 1), "rgb24")), *stream.encode()])
    assert "track 1 subtitle (dvbsub, pictures of text, which cannot be read)" in notes(path)


def test_dolby_vision_without_an_ordinary_base_layer_is_noted(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", 3, codec="libx265", options={"x265-params": "log-level=none"})
    path = tmp_path / "dolby.mp4"
    path.write_bytes(whole.read_bytes().replace(b"hev1", b"dvhe"))
    assert "Dolby Vision without an ordinary base layer" in notes(path)
    assert "Dolby" not in notes(whole)


def test_a_note_names_each_track_that_is_not_sent(tmp_path: Path) -> None:
    path = tracks(tmp_path / "a.mkv", ["video", "audio", "audio", "video", "subtitle"])
    said = notes(path)
    assert "track 2 audio (aac) is not sent; --stream 2 sends it" in said
    assert "track 3 video (mpeg4) is not sent; --stream 3 sends it" in said
    assert "--stream 4" not in said


KINDS = {
    ".mkv": ["video", "audio", "subtitle", "attachment"],
    ".mp4": ["video", "audio", "subtitle", "cover"],
    ".ts": ["video", "audio", "data"],
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_track_is_left_out_silently(data: st.DataObject, tmp_path: Path) -> None:
    ending = data.draw(st.sampled_from(sorted(KINDS)))
    kinds = data.draw(st.lists(st.sampled_from(KINDS[ending]), min_size=1, max_size=6))
    if not {"video", "audio"} & set(kinds):
        kinds.append("audio")
    if ending == ".mp4" and kinds.count("cover") > 1:
        kinds = [kind for n, kind in enumerate(kinds) if kind != "cover" or n == kinds.index("cover")]
    path = tracks(tmp_path / f"film{ending}", kinds)
    with av.open(str(path)) as container:
        there = {stream.index: stream.type for stream in container.streams}
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    row_of = {"video": IMAGE, "audio": AUDIO, "subtitle": TEXT}
    said = "\n".join(recording.notes)
    noted = {index for index in there if f"track {index} " in said}
    sent = set(there) - noted
    assert {row_of[there[index]] for index in sent} == set(rows)
    assert len(sent) == len(rows)


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["film.srt"], "film.srt"),
        (["film.en.srt"], "film.en.srt"),
        (["film.mp4.vtt"], "film.mp4.vtt"),
        (["film.pt-BR.srt"], "film.pt-BR.srt"),
        (["film.SRT"], "film.SRT"),
        (["film.de.srt", "film.en.srt", "film.srt"], "film.srt"),
        (["film.de.srt", "film.en.srt"], "film.en.srt"),
        (["film.en.forced.srt", "film.fr.srt"], "film.fr.srt"),
        (["film.fr.srt", "film.es.srt"], "film.es.srt"),
        (["film.sdh.srt", "film.en.srt"], "film.sdh.srt"),
        (["filmed.srt", "film.part two.srt", "film.en.txt"], None),
    ],
)
def test_the_words_beside_a_film_have_its_name(names: list[str], used: str | None, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    found = captions.beside(tmp_path / "film.mp4", (".srt", ".vtt"), "eng")
    assert (found[0][0].name if found else None) == used


def test_subtitles_with_a_language_in_their_name_are_sent_and_others_noted(tmp_path: Path) -> None:
    path = video(tmp_path / "named.mp4", 20)
    for language in ("en", "de"):
        (tmp_path / f"named.{language}.srt").write_text(f"1\n00:00:00,500 --> 00:00:01,000\nin {language}\n")
    found = by_row(events(path))[TEXT]
    assert texts(found) == ["in de"]
    assert isinstance(found[0].body, Transcript)
    assert found[0].body.language == "de"
    assert "named.en.srt is not sent, since named.de.srt is" in notes(path)


def test_captions_before_a_film_are_left_out_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        words = container.add_stream("subrip")
        words.codec_context.subtitle_header = b"[Events]\r\n"
        for begin_ms, text in ((0, b"before"), (4900, b"across"), (5500, b"within")):
            packet = av.Packet(text)
            packet.stream, packet.time_base, packet.duration = words, Fraction(1, 1000), 300
            packet.pts = packet.dts = begin_ms
            container.mux(packet)
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(bar(number, 10), "rgb24")
            picture.pts, picture.time_base = 50 + number, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    found = by_row(events(path))
    assert times(found[IMAGE])[0] == 0
    assert list(zip(texts(found[TEXT]), spans(found[TEXT]), strict=True)) == [
        ("across", (0.0, 0.2)),
        ("within", (0.5, 0.8)),
    ]
    assert "1 subtitles of track 1 before the start of the film" in notes(path)


@pytest.mark.parametrize("name", ["a.flv", "A.MP4", "a.aiff", "a.CAF", "a.nut", "a.mka", "a.au"])
def test_whatever_ffmpeg_reads_is_sent(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    form = {".mp4": "mp4", ".caf": "caf", ".mka": "matroska"}.get(path.suffix.lower())
    if path.suffix.lower() in (".flv", ".mp4", ".nut"):
        video(path, 20, tone=True, rate_hz=44_100, form=form)
        assert len(by_row(events(path))[IMAGE]) == 20
    else:
        with av.open(str(path), "w", format=form) as container:
            track = container.add_stream("pcm_s16be", rate=16_000, layout="mono")
            tone_S = (np.sin(np.arange(32_000) / 6) * 9000).astype(np.int16)
            container.mux([*track.encode(mono(tone_S, 16_000)), *track.encode()])
    assert abs(heard_s(by_row(events(path))[AUDIO]) - 2) < 0.1


def test_text_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no film\n" * 100)
    with pytest.raises(UsageError, match=r"a\.mp4"):
        events(tmp_path / "a.mp4")


def test_sound_that_is_cut_off_is_sent_with_a_note(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000, np.int16), 16_000)
    whole = (tmp_path / "a.wav").read_bytes()
    assert replay.open_all([tmp_path / "a.wav"]).notes == []
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    recording = replay.open_all([tmp_path / "a.wav"])
    assert 15_900 < len(pcm(by_row(events(recording=recording))[AUDIO])) < 16_000
    [note] = recording.notes
    assert note.endswith(f"the file is cut off: it has {len(whole) // 2:,} of {len(whole):,} bytes")
