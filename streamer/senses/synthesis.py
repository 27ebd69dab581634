"""Words -> speech, 24 kHz mono: by hibari's small network, or by espeak-ng where it is installed.

The same words give the same samples, every time: the noise in hibari's consonants has a fixed seed.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import threading
import wave
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from streamer.errors import UsageError, extra, one_line
from streamer.senses.files import Sense, find
from streamer.settings import Settings

ROLE = "synthesis"
RATE_HZ = 24_000
ESPEAK = "espeak-ng"
ESPEAK_WITHIN_S = 20.0
SEED = 0
FULL_SCALE = 32_767.0


class Speech(msgspec.Struct, frozen=True):
    """Words as they sound.

    Attributes:
        samples_S: Mono, float32 in [-1, 1]; none where the voice has no sound for the words.
    """

    samples_S: NDArray[np.float32]
    rate_hz: int = RATE_HZ

    @property
    def duration_us(self) -> int:
        """How long it takes to say it."""
        return len(self.samples_S) * 1_000_000 // self.rate_hz

    def wav(self) -> bytes:
        """A WAV file: 16-bit PCM, mono."""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(self.rate_hz)
            writer.writeframes((np.clip(self.samples_S, -1, 1) * FULL_SCALE).astype("<i2").tobytes())
        return file.getvalue()


class Voice(Protocol):
    """Says words."""

    name: str

    def say(self, text: str) -> Speech:
        """The words as they sound, at :data:`RATE_HZ`."""
        ...


def resampled(samples_S: NDArray[np.float32], own_hz: int, rate_hz: int) -> NDArray[np.float32]:
    """Samples at another rate, by way of their spectrum; for a whole utterance, which begins and ends in silence."""
    if own_hz == rate_hz or not len(samples_S):
        return samples_S
    count = round(len(samples_S) * rate_hz / own_hz)
    wave_S = np.fft.irfft(np.fft.rfft(samples_S), count) * (count / len(samples_S))
    return wave_S.astype(np.float32)


class Hibari:
    """hibari: American English, a network of 8 MB; a second of speech takes 0.02 s of one core.

    Its own code makes phonemes of words, and sound of what the network says.

    Raises:
        UsageError: The files are not hibari's.
    """

    def __init__(self, sense: Sense) -> None:
        if sense.row is None:
            raise UsageError(
                f"setting STREAMER_SENSES__SYNTHESIS: {sense.name} is no voice; give hibari, {ESPEAK} or a folder with "
                "hibari's files"
            )
        self.name = sense.row.name
        self._guard = threading.Lock()
        with extra("senses", "speech"):
            import onnxruntime  # noqa: F401 - hibari imports it when it loads its network, without a word on how
        self._hibari = _package(sense.files["__init__.py"]).Hibari(model=str(sense.files["model"]), threads=1)

    def say(self, text: str) -> Speech:
        """See :class:`Voice`."""
        with self._guard:
            samples_S: NDArray[np.float32] = self._hibari(text, seed=SEED)
        return Speech(samples_S)


def _package(init: Path) -> Any:
    """A package that is not where Python looks for packages, or that need not be: imported under a name of ours."""
    name = "streamer_hibari"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])
    if spec is None or spec.loader is None:
        raise UsageError(f"{init} cannot be imported")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its modules import each other by it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Espeak:
    """espeak-ng, a program of the system's packages: every language, quick, and it sounds like a machine.

    Raises:
        UsageError: It is not installed.
    """

    name = ESPEAK

    def __init__(self) -> None:
        found = shutil.which(ESPEAK)
        if found is None:
            raise UsageError(f"{ESPEAK} is not installed: apt-get install {ESPEAK}, or choose another voice")
        self._program = found

    def say(self, text: str) -> Speech:
        """See :class:`Voice`.

        Raises:
            UsageError: The program fails.
        """
        try:
            done = subprocess.run(
                [self._program, "--stdin", "--stdout"],
                input=text.encode(),
                capture_output=True,
                check=True,
                timeout=ESPEAK_WITHIN_S,
            )
            samples_S, own_hz = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
        except (subprocess.SubprocessError, OSError, soundfile.SoundFileError) as error:
            raise UsageError(f"{ESPEAK} cannot say {text[:40]!r}: {one_line(error)}") from None
        return Speech(resampled(samples_S, own_hz, RATE_HZ))


def voice(settings: Settings) -> Voice:
    """The voice that the setting ``senses`` names; else hibari where it is there, else espeak-ng where that is.

    Raises:
        UsageError: There is none; with how to get one.
    """
    wanted = settings.senses.get(ROLE)
    if wanted == ESPEAK:
        return Espeak()
    try:
        sense = find(ROLE, settings)
    except UsageError as error:
        if wanted is None and shutil.which(ESPEAK) is not None:
            return Espeak()
        raise UsageError(f"{error}, or install {ESPEAK}") from None
    return Hibari(sense)
