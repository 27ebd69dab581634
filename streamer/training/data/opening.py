"""The known formats, which one a path has, and the division of its rows into parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from streamer.errors import UsageError
from streamer.model.sample import Limits
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.terminal.progress import status, track
from streamer.training.data import cifar, folders, idx, manifest, parts, recorded, texts
from streamer.training.data.rows import BadRow, Dataset, Found, Row, RowError, Rows

CHUNK = 256  # rows decoded before progress is shown again


class Data(NamedTuple):
    """A data set.

    Attributes:
        format: The detected format.
        bad: Rows that were left out; empty if bad rows are refused.
    """

    format: str
    training: Dataset
    validation: Dataset
    test: Dataset
    bad: tuple[BadRow, ...]


class Format(NamedTuple):
    """A known format.

    Attributes:
        looks_so: Whether an existing path seems to have it.
        load: Reads its rows.
    """

    name: str
    looks_so: Callable[[Path], bool]
    load: Callable[[Path, ModelSpec, Settings], Iterable[Found]]


# detected by characteristic file names
TOLD = (
    Format("manifest (.jsonl, or a folder with manifest.jsonl)", manifest.looks_so, manifest.load),
    Format("recording of `streamer record` (.mcap) with labels by time beside it", recorded.looks_so, recorded.load),
    Format("MNIST idx files (…-images-idx3-ubyte, …-labels-idx1-ubyte, .gz or not)", idx.looks_so, idx.load),
    Format("CIFAR-10 batches (data_batch_1 … or .bin)", cifar.looks_so, cifar.load),
)
# detected by kinds of files, the first that fits: a folder of any format may have a readme.txt and folders of images
GUESSED = (
    Format("folder per class (ImageNet, IMDB; in train/, val/, test/ or flat)", folders.looks_so, folders.load),
    Format("texts (wikiextractor, or .txt)", texts.looks_so, texts.load),
)


def open_data(
    path: Path,
    spec: ModelSpec,
    *,
    refuse_bad: bool = True,
    seed: int = 0,
    settings: Settings | None = None,
    console: Console | None = None,
) -> Data:
    """Open a data set of any known format, and check all of it once.

    Every file that the model uses is opened and decoded here, in threads, so that faults are known before training
    begins. Examples are decoded again at each access.

    Args:
        refuse_bad: Raise on the first bad row; else they are left out and listed in ``Data.bad``.
        seed: Draws the parts that the data do not define, see ``parts.divide``.
        settings: For the limits of decoding and the windows of recordings; ``None``: those of a worker started here.
        console: Where progress is shown; ``None``: it is not shown.

    Raises:
        UsageError: The path has no known format or several, a file is malformed, a row is bad and bad rows are
            refused, or no row is left.
    """
    rows, limits, bad, chosen = open_rows(path, spec, refuse_bad=refuse_bad, settings=settings, console=console)
    training, validation, test = (Rows(part, spec, limits) for part in parts.divide(path, rows, seed))
    return Data(chosen, training, validation, test, tuple(bad))


def open_rows(
    path: Path,
    spec: ModelSpec,
    *,
    refuse_bad: bool,
    settings: Settings | None,
    console: Console | None,
) -> tuple[list[Row], Limits, list[BadRow], str]:
    """The rows of a data set before they are divided, all of them checked; arguments and errors of :func:`open_data`.

    Returns:
        The rows, the limits of decoding them, the bad rows, and the name of the format.
    """
    settings = settings if settings is not None else Settings.load()
    chosen = detect(path)
    limits = Limits.of(settings)
    with status(f"reading {path}", console) if console is not None else nullcontext():
        found = list(chosen.load(path, spec, settings))
    found = _looked_through(found, spec, limits, console)
    bad = [item for item in found if isinstance(item, BadRow)]
    if bad and refuse_bad:
        others = f" (and {len(bad) - 1} more bad rows)" if len(bad) > 1 else ""
        raise UsageError(f"{path}: {bad[0]}{others}; repair it, or leave bad rows out with --skip-bad")
    rows = [item for item in found if isinstance(item, Row)]
    if not rows:
        raise UsageError(f"{path} has no examples" + (f": {bad[0]}" if bad else ""))
    return rows, limits, bad, chosen.name


def detect(path: Path) -> Format:
    """The format of a path.

    Raises:
        UsageError: The path does not exist, or has none of the formats, or several.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    found = [known for known in TOLD if known.looks_so(path)]
    if len(found) > 1:
        raise UsageError(
            f"{path} may be {' or '.join(known.name for known in found)}: name the file, or divide the folder"
        )
    found += [known for known in GUESSED if known.looks_so(path)]
    if not found:
        listed = "; ".join(known.name for known in (*TOLD, *GUESSED))
        raise UsageError(f"{path} is no data set of a known format: {listed}")
    return found[0]


def _looked_through(found: list[Found], spec: ModelSpec, limits: Limits, console: Console | None) -> list[Found]:
    """Decode all rows once; those that fail, or divide their group, are replaced by bad rows."""
    rows = [item for item in found if isinstance(item, Row)]
    # of rows checked by their loader, one shows whether the model takes anything of their kind
    unseen = [row for row in rows if not row.checked] or rows[:1]
    dataset = Rows(unseen, spec, limits)
    faults: dict[str, BadRow] = {bad.where: bad for bad in parts.straddling(rows)}

    def fault(row: Row) -> BadRow | None:
        try:
            dataset.sample(row)
        except RowError as error:
            return BadRow(row.where, str(error))
        return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        starts = range(0, len(unseen), CHUNK)
        for start in starts if console is None else track(starts, "looking through the data", console):
            faults |= {bad.where: bad for bad in threads.map(fault, unseen[start : start + CHUNK]) if bad}
    return [item if isinstance(item, BadRow) else faults.get(item.where, item) for item in found]
