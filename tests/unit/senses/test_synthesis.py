"""Voices, where they are installed: what they say is sound, the same each time, and 24 kHz."""

from __future__ import annotations

import io
import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.senses import synthesis
from streamer.senses.files import locate
from streamer.senses.synthesis import ESPEAK, RATE_HZ, Speech, Voice, resampled
from streamer.senses.table import rows
from streamer.settings import Settings

FETCHED = Path(os.environ.get("STREAMER_TEST_SENSES", Settings().senses_dir))


@pytest.fixture(params=[ESPEAK, *(row.name for row in rows("synthesis"))])
def voice(request: pytest.FixtureRequest) -> Voice:
    name: str = request.param
    known = {row.name: row for row in rows("synthesis")}
    if (shutil.which(ESPEAK) if name == ESPEAK else locate(known[name], FETCHED)) is None:
        pytest.skip(f"{name} is not installed")
    return synthesis.voice(Settings(senses={"synthesis": name}, senses_dir=FETCHED))


def test_a_sentence_is_sound_that_is_the_same_each_time(voice: Voice) -> None:
    speech = voice.say("Emergency stop, 12.5 metres per second.")
    assert speech.samples_S.dtype == np.float32
    assert speech.rate_hz == RATE_HZ
    assert 1.0 < speech.duration_us / 1e6 < 6.0
    assert 0.05 < np.abs(speech.samples_S).max() <= 1.0
    assert np.array_equal(voice.say("Emergency stop, 12.5 metres per second.").samples_S, speech.samples_S)


@pytest.mark.parametrize("text", ["...", "日本語", "<b>stop</b> \\ [[x]]", "-v de --help", "one\n\ntwo"])
def test_strange_words_are_said_or_are_silence(voice: Voice, text: str) -> None:
    assert np.isfinite(voice.say(text).samples_S).all()


def test_a_wav_file_has_the_samples() -> None:
    speech = Speech(np.array([0.0, 0.5, -1.0, 2.0], np.float32))
    with wave.open(io.BytesIO(speech.wav())) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        samples = np.frombuffer(file.readframes(10), "<i2")
    assert samples.tolist() == [0, 16383, -32767, 32767]
    assert speech.duration_us == 4 * 1_000_000 // RATE_HZ


def test_a_tone_keeps_pitch_and_loudness_at_another_rate() -> None:
    for own_hz, rate_hz in ((22_050, 24_000), (24_000, 16_000)):
        fade = np.hanning(own_hz)
        tone = (np.sin(2 * np.pi * 440 * np.arange(own_hz) / own_hz) * fade).astype(np.float32)
        wanted = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz) * np.interp(
            np.arange(rate_hz) / rate_hz, np.arange(own_hz) / own_hz, fade
        )
        assert np.abs(resampled(tone, own_hz, rate_hz) - wanted).max() < 1e-3


def test_without_a_voice_one_line_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("streamer.senses.files.metadata.distribution", _absent)
    with pytest.raises(UsageError, match=r"`streamer senses --fetch hibari`, or install espeak-ng$"):
        synthesis.voice(Settings(senses_dir=tmp_path))
    with pytest.raises(UsageError, match="espeak-ng is not installed: apt-get install"):
        synthesis.voice(Settings(senses={"synthesis": ESPEAK}, senses_dir=tmp_path))


def test_a_folder_that_is_no_voice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voice.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="is no voice; give hibari, espeak-ng or a folder"):
        synthesis.voice(Settings(senses={"synthesis": str(tmp_path)}))


def _absent(name: str) -> None:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)
