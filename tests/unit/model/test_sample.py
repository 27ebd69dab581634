"""Cutting windows: what is inside the borders, what is masked, what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import soundfile
from PIL import Image

from streamer.errors import Reason
from streamer.events import (
    AUDIO,
    IMAGE,
    TELEMETRY,
    TEXT,
    Channel,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Telemetry,
    Transcript,
    Window,
    Word,
)
from streamer.kinds.image import reading_order
from streamer.model import payloads
from streamer.model.sample import Limits, Mismatch, Sample, cut
from streamer.model.spec import AudioInput, ImageInput, InputSpec, TelemetryInput, TextInput

T0 = 1_700_000_000_000_000
RATE = 16_000
SPEC = InputSpec(
    image=ImageInput(frames=2, height=36, width=64),
    audio=AudioInput(rate_hz=RATE),
    text=TextInput(max_tokens=16),
    telemetry=TelemetryInput(channels=("speed", "steer"), rate_hz=10),
)
LIMITS = Limits(max_image_pixels=1_000_000, expected_hz={"image": 10.0})


def event(row: int, start_us: int, end_us: int, value: bytes = b"", media_type: str = "", **more: Any) -> Event:
    record = Record(row, 0, 0, start_us, b"car", value, ())
    return Event(record, "car", EventType.DATA, T0 + start_us, T0 + end_us, media_type, **more)


def window(*events: Event, size_us: int = 1_000_000) -> Window:
    rows = tuple(tuple(e for e in events if e.row == row) for row in range(4))
    return Window("car", 0, T0, T0 + size_us, ClosedBy.COMPLETE, Position(T0, 0, 0), rows, (T0,) * 4)


def frame(at_us: int, colour: int = 128, size: tuple[int, int] = (72, 128)) -> Event:
    pixels = np.full((*size, 3), colour, np.uint8)
    return event(IMAGE, at_us, at_us, simplejpeg.encode_jpeg(pixels), "image/jpeg")


def chunk(start_us: int, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> Event:
    end_us = start_us + round(samples.shape[0] / rate * 1e6)
    content = (samples * 32767).round().astype(">i2").tobytes()
    params = {"rate": str(rate), "channels": str(channels)}
    return event(AUDIO, start_us, end_us, content, "audio/l16", params=params)


def tone(seconds: float, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def speech(start_us: int, end_us: int, *words: tuple[str, float, float], text: str = "") -> Event:
    body = Transcript(text or " ".join(w[0] for w in words), words=tuple(Word(*word) for word in words))
    return event(TEXT, start_us, end_us, media_type="application/json", body=body)


def block(start_us: int, end_us: int, body: Telemetry) -> Event:
    return event(TELEMETRY, start_us, end_us, media_type="application/json", body=body)


def cut_cleanly(*events: Event, spec: InputSpec = SPEC) -> Sample:
    result, rejects = cut(window(*events), spec, LIMITS)
    assert rejects == []
    return result


def test_an_empty_window_has_nothing_present_and_no_arrays() -> None:
    result = cut_cleanly()
    assert result == Sample(present=(False,) * 4, coverage=(0.0,) * 4)


# frames


def test_frames_are_spread_evenly_and_kept_in_order_of_time() -> None:
    result = cut_cleanly(*(frame(100_000 * i, 25 * i) for i in range(10)))
    assert result.image_FHW3 is not None
    assert result.image_FHW3.shape == (2, 36, 64, 3)
    assert [round(float(shown.mean()) / 25) for shown in result.image_FHW3] == [2, 7]
    assert result.coverage[IMAGE] == 1.0


def test_frames_that_were_not_chosen_are_never_opened() -> None:
    broken = [event(IMAGE, 100_000 * i, 100_000 * i, b"no image", "image/jpeg") for i in (0, 1, 3, 4)]
    result, rejects = cut(window(broken[0], broken[1], frame(200_000), *broken[2:]), one_frame(), LIMITS)
    assert rejects == []
    assert result.present[IMAGE]


def one_frame() -> InputSpec:
    return InputSpec(image=ImageInput(frames=1, height=36, width=64))


def test_a_broken_chosen_frame_is_rejected_and_a_good_one_takes_its_place() -> None:
    bad = event(IMAGE, 500_000, 500_000, frame(0).record.value[:300], "image/jpeg")
    result, rejects = cut(window(frame(400_000), bad, frame(600_000, 200)), one_frame(), LIMITS)
    assert [(e, r.reason) for e, r in rejects] == [(bad, Reason.BAD_PAYLOAD)]
    assert result.image_mask_F is not None
    assert result.image_mask_F.tolist() == [True]
    assert result.coverage[IMAGE] == pytest.approx(0.2)


def test_a_window_of_broken_frames_only_has_no_image() -> None:
    bad = [event(IMAGE, at, at, b"", "image/png") for at in (0, 500_000)]
    result, rejects = cut(window(*bad), SPEC, LIMITS)
    assert len(rejects) == 2
    assert not result.present[IMAGE]
    assert result.image_FHW3 is None


def test_fewer_frames_than_asked_for_are_masked() -> None:
    result = cut_cleanly(frame(0))
    assert result.image_mask_F is not None
    assert result.image_mask_F.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_bomb_is_refused_before_it_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(content, kind)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(Image.Image, "convert", lambda *_, **__: pytest.fail("decoded"))
    bomb = event(IMAGE, 0, 0, content.getvalue(), f"image/{kind.lower()}")
    result, rejects = cut(window(bomb), SPEC, LIMITS)
    assert [r.reason for _, r in rejects] == [Reason.IMAGE_BOMB]
    assert not result.present[IMAGE]


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "L"), ("WEBP", "RGB"), ("JPEG", "CMYK"), ("JPEG", "L")]
)
def test_every_image_format_becomes_rgb_of_the_size_asked_for(kind: str, mode: str) -> None:
    content = io.BytesIO()
    Image.new(mode, (50, 40)).save(content, kind)
    result = cut_cleanly(event(IMAGE, 0, 0, content.getvalue(), f"image/{kind.lower()}"))
    assert result.image_FHW3 is not None
    assert result.image_FHW3.shape == (2, 36, 64, 3)


def test_a_frame_at_the_windows_end_belongs_to_the_next_window() -> None:
    assert cut_cleanly(frame(999_999)).present[IMAGE]
    assert not cut_cleanly(frame(1_000_000)).present[IMAGE]


def test_a_frame_is_seen_upright() -> None:
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[40:, :16] = 255  # bottom left, as the sensor of a phone that is held upright sees what is top left
    note = Image.Exif()
    note[0x0112] = 6
    content = io.BytesIO()
    Image.fromarray(stored).save(content, "JPEG", exif=note, quality=95)
    spec = InputSpec(image=ImageInput(frames=1, height=96, width=64))
    result = cut_cleanly(event(IMAGE, 0, 0, content.getvalue(), "image/jpeg"), spec=spec)
    assert result.image_FHW3 is not None
    white = result.image_FHW3[0].min(axis=2) > 200
    assert white[:14, :22].all()
    assert not white[18:].any()
    assert not white[:, 26:].any()


# audio


def test_chunks_join_without_a_seam_and_the_mask_shows_the_gap() -> None:
    whole = tone(1.0)
    result = cut_cleanly(chunk(0, whole[:4000]), chunk(250_000, whole[4000:8000]), chunk(750_000, whole[12000:]))
    assert result.audio_S is not None
    assert result.audio_mask_S is not None
    assert np.abs(result.audio_S[:8000] - whole[:8000]).max() < 1e-3
    assert result.audio_mask_S[:8000].all()
    assert not result.audio_mask_S[8000:12000].any()
    assert result.audio_mask_S[12000:].all()
    assert result.coverage[AUDIO] == 0.75


def test_audio_is_cut_by_sample_at_both_borders() -> None:
    ramp = np.linspace(-0.9, 0.9, 3 * RATE)
    result = cut_cleanly(chunk(-1_000_000, ramp))
    assert result.audio_S is not None
    assert result.audio_S.shape == (RATE,)
    assert np.abs(result.audio_S - ramp[RATE : 2 * RATE]).max() < 1e-3


def test_audio_of_which_no_sample_is_left_is_not_present() -> None:
    result = cut_cleanly(chunk(-100_000, tone(0.1)), chunk(1_000_000, tone(0.1)))
    assert not result.present[AUDIO]


def test_silence_that_was_heard_is_present() -> None:
    result = cut_cleanly(chunk(0, np.zeros(RATE)))
    assert result.present[AUDIO]
    assert result.coverage[AUDIO] == 1.0
    assert result.audio_S is not None
    assert not result.audio_S.any()


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 44101])
def test_audio_of_another_rate_is_resampled_in_place(rate: int) -> None:
    result = cut_cleanly(
        *(chunk(round(i * 1e5), tone(1.0, rate)[i * rate // 10 : (i + 1) * rate // 10], rate) for i in range(10))
    )
    assert result.audio_S is not None
    inner = slice(200, -200)  # a filter has no past at the window's start
    assert np.abs(result.audio_S[inner] - tone(1.0)[inner]).max() < 0.05
    assert result.coverage[AUDIO] > 0.999


def test_stereo_is_mixed_to_mono() -> None:
    left = tone(0.5)
    result = cut_cleanly(chunk(0, np.stack([left, -left], axis=1), channels=2))
    assert result.audio_S is not None
    assert np.abs(result.audio_S).max() < 1e-3


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_audio_files_are_cut_like_raw_samples(kind: str, subtype: str) -> None:
    content = io.BytesIO()
    soundfile.write(content, tone(2.0), RATE, format=kind, subtype=subtype)
    chunk_ = event(AUDIO, -500_000, 1_500_000, content.getvalue(), f"audio/{kind.lower()}")
    result = cut_cleanly(chunk_)
    assert result.audio_S is not None
    assert np.abs(result.audio_S - tone(2.0)[8000:24000]).max() < 0.1
    assert result.coverage[AUDIO] == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        event(AUDIO, 0, 100_000, b"RIFFnonsense", "audio/wav"),
        event(AUDIO, 0, 100_000, b"\0\0\0", "audio/l16", params={"rate": "16000"}),
        event(AUDIO, 0, 100_000, b"\0\0", "audio/l16", params={"rate": "4294967295"}),
        event(AUDIO, 0, 100_000, b"\0\0", "audio/l16"),
    ],
    ids=["no wav", "half a sample", "impossible rate", "no rate"],
)
def test_broken_audio_is_rejected_and_the_rest_still_counts(bad: Event) -> None:
    result, rejects = cut(window(bad, chunk(500_000, tone(0.5))), SPEC, LIMITS)
    assert [(e, r.reason) for e, r in rejects] == [(bad, Reason.BAD_PAYLOAD)]
    assert result.coverage[AUDIO] == 0.5


def test_coverage_is_of_the_samples_that_are_there_and_a_payload_that_says_more_is_reported() -> None:
    content = io.BytesIO()
    soundfile.write(content, tone(0.25), RATE, format="WAV", subtype="PCM_16")
    result = cut_cleanly(event(AUDIO, 0, 1_000_000, content.getvalue(), "audio/wav"))
    assert result.coverage[AUDIO] == 0.25
    assert result.audio_mask_S is not None
    assert result.audio_mask_S.tolist() == [True] * 4000 + [False] * 12_000
    assert result.mismatches == (Mismatch(0, 0, 1, 1_000_000, -750_000),)


def test_a_mismatch_is_reported_in_the_window_in_which_the_event_ends() -> None:
    def found(start_us: int, end_us: int) -> tuple[Mismatch, ...]:
        raw = event(AUDIO, start_us, end_us, bytes(2 * RATE), "audio/l16", params={"rate": str(RATE)})  # 1 s
        return cut_cleanly(raw).mismatches

    assert found(0, 1_000_000) == found(-500_000, 500_000) == ()
    assert found(-2_000_000, 1_000_000) == (Mismatch(0, 0, 1, 3_000_000, -2_000_000),)
    assert found(-2_000_000, 1_000_001) == ()  # ends in the next window
    assert found(500_000, 900_000) == (Mismatch(0, 0, 1, 400_000, 600_000),)


# text


def test_words_are_cut_by_their_middle_and_each_falls_in_one_window() -> None:
    said = speech(-400_000, 1_300_000, ("before", 0.0, 0.39), ("edge", 0.3, 0.5), ("in", 0.6, 1.0), ("after", 1.3, 1.5))
    assert [p.text for p in cut_cleanly(said).text] == ["edge in"]


def test_a_transcript_without_words_in_the_window_is_not_present() -> None:
    assert not cut_cleanly(speech(-500_000, 500_000, ("before", 0.0, 0.2))).present[TEXT]


def test_a_transcript_without_word_times_comes_whole_with_its_overlap() -> None:
    result = cut_cleanly(speech(-750_000, 250_000, text="a siren behind us"))
    assert [(p.text, p.overlap) for p in result.text] == [("a siren behind us", 0.25)]
    assert result.coverage[TEXT] == 1.0


def test_an_empty_transcript_is_not_present() -> None:
    assert not cut_cleanly(speech(0, 500_000, text=" ")).present[TEXT]


# telemetry


def test_telemetry_is_interpolated_on_the_grid_and_masked_where_nothing_was_measured() -> None:
    body = Telemetry({"speed": Channel((0.0, 10.0, 20.0))}, rate_hz=5)
    result = cut_cleanly(block(200_000, 800_000, body))
    assert result.telemetry_CT is not None
    assert result.telemetry_mask_CT is not None
    assert np.allclose(result.telemetry_CT[0, 2:7], [0, 5, 10, 15, 20])
    assert result.telemetry_mask_CT[0].tolist() == [False] * 2 + [True] * 6 + [False] * 2
    assert not result.telemetry_mask_CT[1].any(), "a channel that nobody sends is masked"
    assert result.coverage[TELEMETRY] == pytest.approx(0.6)


def test_telemetry_samples_outside_of_the_window_have_no_influence() -> None:
    body = Telemetry({"speed": Channel((99.0, 1.0, 2.0, 99.0))}, times=(0.0, 0.5, 1.0, 1.5))
    result = cut_cleanly(block(-500_000, 1_500_000, body))
    assert result.telemetry_CT is not None
    assert result.telemetry_CT[0].max() <= 2.0


@pytest.mark.parametrize(("zero", "scale"), [(0.0, 1.0), (500.0, 0.01), (-3.0, -40.0)])
def test_a_relative_channel_has_mean_0_and_deviation_1_whatever_its_zero_and_scale(zero: float, scale: float) -> None:
    wave = (0.0, 4.0, 1.0, -2.0, 2.0)
    body = Telemetry({"speed": Channel(tuple(zero + scale * v for v in wave)), "steer": Channel(wave)}, rate_hz=10)
    spec = InputSpec(telemetry=TelemetryInput(channels=("speed", "steer"), rate_hz=10, relative=("speed",)))
    result = cut_cleanly(block(200_000, 500_000, body), spec=spec)
    assert result.telemetry_CT is not None
    relative_T, as_it_is_T = result.telemetry_CT[:, 2:7]
    assert np.allclose(relative_T, np.sign(scale) * (np.array(wave) - 1) / 2, atol=1e-3)
    assert np.allclose(as_it_is_T, wave)


def test_a_flat_line_in_a_relative_channel_is_0() -> None:
    body = Telemetry({"speed": Channel((0.1,) * 10)}, rate_hz=10)
    spec = InputSpec(telemetry=TelemetryInput(channels=("speed",), rate_hz=10, relative=("speed",)))
    result = cut_cleanly(block(0, 1_000_000, body), spec=spec)
    assert result.telemetry_CT is not None
    assert np.allclose(result.telemetry_CT, 0, atol=0.1)


def test_telemetry_without_a_sample_in_the_window_is_not_present() -> None:
    body = Telemetry({"speed": Channel((1.0, 2.0))}, times=(0.0, 2.0))
    assert not cut_cleanly(block(-500_000, 1_500_000, body)).present[TELEMETRY]


@pytest.mark.parametrize(
    "body",
    [
        Telemetry({"speed": Channel((1.0, 2.0)), "steer": Channel((1.0,))}, rate_hz=10),
        Telemetry({"speed": Channel((1.0, 2.0))}, times=(0.0,)),
        Telemetry({"speed": Channel((1.0, 2.0))}),
        Telemetry({"speed": Channel((1.0, float("inf")))}, rate_hz=10),
    ],
    ids=["lengths differ", "times differ", "no times", "not finite"],
)
def test_inconsistent_telemetry_is_rejected(body: Telemetry) -> None:
    result, rejects = cut(window(block(0, 200_000, body)), SPEC, LIMITS)
    assert [r.reason for _, r in rejects] == [Reason.BAD_PAYLOAD]
    assert not result.present[TELEMETRY]


# the whole


def test_presence_and_coverage_are_told_without_opening_what_the_model_does_not_ask_for() -> None:
    unopened = event(AUDIO, 0, 250_000, b"not audio", "audio/wav"), event(IMAGE, 0, 0, b"no image", "image/jpeg")
    result = cut_cleanly(*unopened, speech(0, 1, text="hello"), spec=InputSpec(text=TextInput(4)))
    assert result.present == (True, True, True, False)
    assert result.coverage == pytest.approx((0.1, 0.25, 1.0, 0.0))
    assert result.image_FHW3 is None


def test_a_claim_check_is_fetched_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(frame(0, 200).record.value)
    claim = event(IMAGE, 0, 0, media_type="image/jpeg", dataref=path.as_uri())
    assert cut_cleanly(claim).present[IMAGE]


def test_times_in_a_claim_check_count_from_its_ce_time(tmp_path: Path) -> None:
    said, measured = tmp_path / "said.json", tmp_path / "measured.json"
    said.write_text('{"text": "a b", "start": 0.4, "words": [{"text": "a", "start": 0.4, "end": 0.5}]}')
    measured.write_text('{"channels": {"speed": {"values": [3, 4]}}, "times": [0.5, 1.5]}')
    claims = [
        event(TEXT, 450_000, 1_550_000, media_type="application/json", dataref=said.as_uri()),
        event(TELEMETRY, 450_000, 2_000_000, media_type="application/json", dataref=measured.as_uri()),
    ]
    result = cut_cleanly(*claims)
    assert [p.text for p in result.text] == ["a"]
    assert result.telemetry_CT is not None
    assert result.telemetry_CT[0].tolist() == [3.0] * 10


@pytest.mark.parametrize("first", [0.0, 0.25])
def test_the_decoded_events_start_is_where_its_first_sample_is(first: float) -> None:
    body = Telemetry({"speed": Channel((1.0, 2.0, 3.0))}, times=(first, first + 0.1, first + 0.2))
    result = cut_cleanly(block(500_000, 800_000, body))
    assert result.telemetry_CT is not None
    assert np.allclose(result.telemetry_CT[0, 5:8], [1, 2, 3])


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("missing.jpg", Reason.BAD_PAYLOAD),
        ("../../etc/passwd", Reason.DATAREF_REFUSED),
        ("x::file:///etc/passwd", Reason.DATAREF_REFUSED),
    ],
)
def test_a_claim_check_that_cannot_be_had_is_rejected(tmp_path: Path, tail: str, reason: Reason) -> None:
    claim = event(IMAGE, 0, 0, media_type="image/jpeg", dataref=f"{tmp_path.as_uri()}/{tail}")
    _, rejects = cut(window(claim), SPEC, LIMITS)
    assert [r.reason for _, r in rejects] == [reason]


def test_a_claim_check_larger_than_the_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_DATAREF_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    _, rejects = cut(window(event(IMAGE, 0, 0, media_type="image/jpeg", dataref=path.as_uri())), SPEC, LIMITS)
    assert [r.reason for _, r in rejects] == [Reason.BAD_PAYLOAD]


def test_json_that_comes_by_claim_check_is_read_and_checked(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"text": "brake"}')
    bad.write_text('{"text": 1}')
    claims = [event(TEXT, 0, 500_000, media_type="application/json", dataref=p.as_uri()) for p in (good, bad)]
    result, rejects = cut(window(*claims), SPEC, LIMITS)
    assert [p.text for p in result.text] == ["brake"]
    assert [r.reason for _, r in rejects] == [Reason.BAD_PAYLOAD]


def test_the_order_of_reading_tries_every_frame_once() -> None:
    for available in range(12):
        for wanted in range(1, 5):
            assert sorted(reading_order(available, wanted)) == list(range(available))
