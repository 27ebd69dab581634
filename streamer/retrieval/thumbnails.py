"""Windows -> their newest frames as files, read from Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from streamer.errors import UsageError
from streamer.result import Result
from streamer.retrieval.contents import Gone, Log, Windows
from streamer.settings import Settings

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


def save(settings: Settings, results: Sequence[Result], folder: Path, sensor: str | None = None) -> list[Path | None]:
    """Write the newest frame of each window to ``folder``, named by rank and by the window's end in µs.

    Args:
        sensor: Whose frame; ``None``: of the first camera that the window has.

    Returns:
        The file of each result; ``None`` if the window has no such frame, or Kafka has deleted it.

    Raises:
        UsageError: Kafka does not answer, or the folder cannot be written.
        Unavailable: Kafka does not answer in time.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_save(settings, results, folder, sensor))
    except OSError as error:
        raise UsageError(f"cannot write thumbnails to {folder}: {error.strerror}") from None


async def _save(settings: Settings, results: Sequence[Result], folder: Path, sensor: str | None) -> list[Path | None]:
    windows = Windows(settings, await asyncio.to_thread(Log, settings))
    written: list[Path | None] = []
    try:
        for rank, result in enumerate(results, 1):
            try:
                frame = await windows.frame(result, sensor)
            except Gone:
                written.append(None)
                continue
            path = folder / f"{rank:02}-{result.end_us}{SUFFIXES[frame.media_type]}"
            await asyncio.to_thread(path.write_bytes, frame.content)
            written.append(path)
    finally:
        await windows.close()
    return written
