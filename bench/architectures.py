"""What each encoder and fusion costs: parameters, and CPU time of one window in batches of 16, one thread.

    python bench/architectures.py                                   # all that need no files
    python bench/architectures.py image timm:resnet18 timm:inception_v3

Windows are those of models/driving: 2 frames of 90 × 160, 1 s at 16 kHz, 48 tokens, 3 channels at 20 Hz; size "small".
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from streamer.model.nets.architecture import KINDS, Architecture
from streamer.model.nets.build import Data, build
from streamer.model.nets.encoders.text import Vocabulary
from streamer.model.nets.heads import Head
from streamer.model.nets.inputs import Inputs

BATCH, REPEATS = 16, 3
WHOLE = Data((90, 160), 16_000, Vocabulary(tuple(map(str, range(768)))), 48, 3)
PARTS = {
    "image": Data(image_size=WHOLE.image_size),
    "audio": Data(audio_rate_hz=WHOLE.audio_rate_hz),
    "text": Data(vocabulary=WHOLE.vocabulary, max_tokens=WHOLE.max_tokens),
    "telemetry": Data(telemetry_channels=WHOLE.telemetry_channels),
    "fusion": WHOLE,
}
NAMED = {"image": ["timm:resnet18", "timm:resnet50", "timm:inception_v3"], "audio": ["torchaudio:hubert_base"]}


def windows() -> Inputs:
    """A batch of whole windows."""

    def mask(*shape: int) -> torch.Tensor:
        return torch.ones(BATCH, *shape, dtype=torch.bool)

    return Inputs(
        torch.randint(0, 256, (BATCH, 2, 3, 90, 160), dtype=torch.uint8),
        mask(2),
        torch.randn(BATCH, 16_000) * 0.1,
        mask(16_000),
        torch.randint(0, 768, (BATCH, 48)),
        mask(48),
        torch.ones(BATCH, 48),
        torch.randn(BATCH, 3, 20),
        mask(3, 20),
    )


@torch.inference_mode()
def measure(part: str, name: str) -> tuple[int, float]:
    """Parameters of the encoder or fusion, and milliseconds of CPU that it takes for a window."""
    chosen: dict[str, Any] = {part: name}
    module = build(Architecture(**chosen), PARTS[part], {"a": Head(6)}, Path(), pretrained=False).eval()
    measured = module.fusion if part == "fusion" else module.encoders[part]
    spent: list[float] = []
    begun = 0.0

    def begin(*_: object) -> None:
        nonlocal begun
        begun = time.process_time()

    measured.register_forward_pre_hook(begin)
    measured.register_forward_hook(lambda *_: spent.append(time.process_time() - begun))
    for _ in range(1 + REPEATS):
        module(windows())
    return sum(weight.numel() for weight in measured.parameters()), 1000 * min(spent[1:]) / BATCH


def main() -> None:
    """Print a table in Markdown's form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("part", "name", "parameters", "CPU ms a window", box=None)
    for part in [given.part] if given.part else PARTS:
        plain = [name for name, kind in KINDS[part].items() if not kind.OF]
        for name in given.names or plain + NAMED.get(part, []):
            parameters, cpu_ms = measure(part, name)
            table.add_row(part, name, f"{parameters:,}", f"{cpu_ms:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
