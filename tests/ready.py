"""Ready senses for tests: the settings that find them, or a skip with the reason where one is not there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from streamer.errors import UsageError
from streamer.senses import files
from streamer.settings import Settings


def settings(folder: Path, *roles: str) -> Settings:
    """Settings by which these roles are found; skips the test if one is not there.

    Args:
        folder: The fixture ``senses_dir``.
    """
    found = Settings(senses_dir=folder)
    for role in roles:
        try:
            files.find(role, found)
        except UsageError as error:
            pytest.skip(str(error))
    return found


def street(*signs: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A drawn meadow under a sky with stop signs, which a detector takes for real ones.

    Args:
        signs: Centre and radius of each, of 300 pixels.

    Returns:
        uint8 [300, 300, 3].
    """
    drawn = Image.new("RGB", (300, 300), (140, 180, 220))
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((0, 200, 300, 300), fill=(90, 120, 80))
    for x, y, radius in signs:
        pen.rectangle((x - 5, y, x + 5, 300), fill=(150, 150, 150))
        angles = [math.pi / 8 + corner * math.pi / 4 for corner in range(8)]
        corners = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
        pen.polygon(corners, fill=(200, 20, 30), outline="white", width=3)
        pen.text((x, y), "STOP", fill="white", anchor="mm", font=ImageFont.load_default(0.7 * radius))
    return np.asarray(drawn)
