"""Networks run by ONNX Runtime, in the caller's thread alone: the cores of a worker have their work already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamer.errors import UsageError, extra, one_line
from streamer.senses.table import rows

if TYPE_CHECKING:
    import onnxruntime

    from streamer.senses.files import Sense


def files_of(sense: Sense) -> dict[str, Path]:
    """The files of a sense by their keys.

    Raises:
        UsageError: The setting names something without the files of a row.
    """
    if sense.row is None:
        like = ", ".join(row.name for row in rows(sense.role))
        raise UsageError(
            f"setting STREAMER_SENSES__{sense.role.upper()}: {sense.name} cannot be run as {sense.role}; give a folder "
            f"with files named as those of {like}, see docs/senses.md"
        )
    return sense.files


def session(model: bytes | Path, weights: dict[str, bytes] | None = None, *, name: str) -> onnxruntime.InferenceSession:
    """Open a network.

    Args:
        weights: Files that the model says its weights are in, by their names.
        name: Of the model, for messages.

    Raises:
        UsageError: ONNX Runtime is not installed, or does not read the model.
    """
    with extra("senses", f"running {name}"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if weights:
        sizes = [len(content) for content in weights.values()]
        options.add_external_initializers_from_files_in_memory([*weights], [*weights.values()], sizes)
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has its own errors, without a common root
        raise UsageError(f"{name} does not load: {one_line(error)}") from error
