"""Small data sets on disk, and specs of models for them."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from streamer.model.spec import AudioInput, ImageInput, InputSpec, ModelSpec, Output, TelemetryInput, TextInput

ALL_INPUTS = InputSpec(
    image=ImageInput(frames=1, height=8, width=12),
    audio=AudioInput(rate_hz=4000),
    text=TextInput(max_tokens=8),
    telemetry=TelemetryInput(channels=("speed",), rate_hz=10),
)
CAT_OR_DOG = {"animal": Output(("cat", "dog"))}


def spec(outputs: dict[str, Output] = CAT_OR_DOG, inputs: InputSpec = ALL_INPUTS) -> ModelSpec:
    """Spec of a model with windows of half a second."""
    return ModelSpec(name="toy", version="1", window_ms=500, inputs=inputs, outputs=outputs)


def portrait(path: Path) -> Path:
    """A picture that is white at the top and was taken with the camera turned, 24 × 16 as it is stored."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12] = 255
    note = Image.Exif()
    note[0x0112] = 6
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=note)
    return path


def picture(path: Path, shade: int = 100, size: tuple[int, int] = (24, 16), kind: str = "PNG") -> Path:
    """A grey picture, width × height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(buffer, kind)
    path.write_bytes(buffer.getvalue())
    return path


def sound(path: Path, seconds: float = 0.5, rate_hz: int = 4000, level: float = 0.5) -> Path:
    """A WAV file with the same value throughout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.full(round(seconds * rate_hz), level * 32768, "<i2").tobytes())
    return path


def manifest(folder: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    """A manifest; strings are written as they are."""
    path = folder / "manifest.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path
