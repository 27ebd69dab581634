"""Text in pictures: words drawn on frames of real films, and what is found on frames without any."""

from __future__ import annotations

import time
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.senses import Table
from bench.senses.films import frames_of
from streamer.senses.letters import LEAST_SCORE, Reader
from streamer.settings import Settings

FILMS = ("driving/solidWhiteRight.mp4", "gopro/max-heromode.mp4", "nasa/nasa_13013.mp4", "grid/bbaf2n.mpg")  # no text
FRAMES = 4  # of each film
SIZES_PX = (10, 14, 20, 32)
WORDS = ("Rue de Londres", "SPEED LIMIT 55", "open 7 to 19")
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

Picture = NDArray[np.uint8]


def measure(settings: Settings, data: Path) -> Table:
    """Letters read of those drawn, and lines found where none are."""
    reader = Reader(settings)
    frames = [frame for film in FILMS for frame in frames_of(data / film, FRAMES)]
    rows = []
    for size in SIZES_PX:
        drawn = [_with_words(frame, WORDS[n % len(WORDS)], size) for n, frame in enumerate(frames)]
        began_s = time.process_time()
        read = [" ".join(line.text for line in lines) for lines in reader.read(drawn)]
        spent_s = time.process_time() - began_s
        wanted = [WORDS[n % len(WORDS)] for n in range(len(frames))]
        right = sum(_same(text, words) for text, words in zip(read, wanted, strict=True))
        exact = sum(text == words for text, words in zip(read, wanted, strict=True))
        rows.append(
            (
                f"{size} px",
                f"{right / sum(map(len, wanted)):.0%}",
                f"{exact} of {len(frames)}",
                f"{spent_s / len(frames):.2f} s",
            )
        )
    false = [line for lines in reader.read(frames, 0.0) for line in lines]
    sure = sum(line.score >= LEAST_SCORE for line in false)
    about = (
        f"{len(frames)} frames of {len(FILMS)} films without text, on each a line drawn in a dark box, in letters of "
        f"so many pixels. Without words drawn, {len(false)} lines were found on them, "
        f"{sure} with a score of {LEAST_SCORE} or more, which is the least that counts."
    )
    return Table(about, ("size of letters", "read right", "lines read without a fault", "CPU time a frame"), rows)


def _with_words(frame: Picture, words: str, size_px: int) -> Picture:
    picture = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size_px)
    at = (picture.width // 8, picture.height // 3)
    left, top, right, bottom = draw.textbbox(at, words, font=font)
    draw.rectangle((left - 6, top - 6, right + 6, bottom + 6), fill=BLACK)
    draw.text(at, words, fill=WHITE, font=font)
    return np.asarray(picture)


def _same(read: str, wanted: str) -> int:
    """Characters of the wanted text that were read, in order."""
    return sum(block.size for block in SequenceMatcher(None, read, wanted, autojunk=False).get_matching_blocks())
