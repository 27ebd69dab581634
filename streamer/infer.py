"""Window -> tensors -> model -> prediction.

``decode`` is for a pool of threads (libjpeg, Pillow and NumPy let go of the GIL), ``predict`` for one thread a device.
Shape suffixes: see ``nets/inputs.py``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer import repository
from streamer.collate import collate
from streamer.errors import UsageError
from streamer.events import MODALITY_NAMES, Window
from streamer.nets.inputs import Inputs, Outputs
from streamer.results import Result, ranges
from streamer.sample import Limits, Reject, Sample, cut
from streamer.settings import Settings

SCORE_DIGITS = 4  # scores travel as JSON, and a float32 softmax holds no more


class Prediction(msgspec.Struct, frozen=True):
    """What the model says about one window.

    Attributes:
        outputs: Head -> ``{"label": …, "score": …, "scores": {label: score}}``; scores are probabilities.
        embedding: float16 [D], length 1: the window in the common space.
    """

    outputs: dict[str, Any]
    embedding: NDArray[np.float16]


def result_of(
    window: Window,
    sample: Sample,
    prediction: Prediction | None,
    *,
    topics: Sequence[str],
    model: str,
    version: str,
    status: str = "ok",
    latencies_us: dict[str, int] | None = None,
) -> Result:
    """What is to be published of a window.

    Args:
        sample: What was left of the window for the model.
        prediction: None: the model raised.
        topics: Full names of the source topics, in the order of the modalities.
        status: See :class:`streamer.results.Result`.
    """
    return Result(
        session=window.session,
        start_us=window.start_us,
        end_us=window.end_us,
        closed_by=str(window.closed_by),
        present=tuple(name for name, here in zip(MODALITY_NAMES, sample.present, strict=True) if here),
        coverage=dict(zip(MODALITY_NAMES, sample.coverage, strict=True)),
        members={
            topic: ranges([event.record.offset for event in events])
            for topic, events in zip(topics, window.events, strict=True)
            if events
        },
        outputs=prediction.outputs if prediction is not None else {},
        embedding=prediction.embedding.tobytes() if prediction is not None else b"",
        model=model,
        version=version,
        status=status,
        latencies_us=latencies_us if latencies_us is not None else {},
    )


class ModelFault(RuntimeError):
    """The model answered something that cannot be a prediction; the batch is at fault, or a window in it."""


class DeviceLost(RuntimeError):
    """The device answers nothing any more, whatever it is asked: only a new process gets it back."""


class Predictor:
    """A model of the repository on a device.

    Attributes:
        spec: What its ``model.toml`` says.
        name, version: For results; the version tells the weights apart.
    """

    def __init__(self, model: repository.Model, device: torch.device, limits: Limits) -> None:
        self.spec = model.spec
        self.name = model.spec.name
        self.version = model.version
        self.device = device
        self._module = model.module.to(device)
        self._tokenizer = model.tokenizer
        self._limits = limits

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "auto",
        settings: Settings | None = None,
        threads: int | None = None,
    ) -> Predictor:
        """Load a model folder onto a device.

        Args:
            device: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            settings: Where the limits of decoding are taken from; None: the defaults.
            threads: CPU threads of one forward pass, for the whole process; None: half of the cores, since decoding,
                Kafka and Redis want theirs (and two threads cost a fifth more CPU than one for the same batch).

        Raises:
            ModelError: The folder cannot be loaded as it is.
            UsageError: There is no such device.
        """
        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
        limits = Limits.of(settings) if settings is not None else Limits()
        return cls(repository.read(folder), pick_device(device), limits)

    @property
    def device_uuid(self) -> str | None:
        """What NVIDIA's tools call the device; None: it is none of theirs."""
        if self.device.type != "cuda":
            return None
        return f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def decode(self, window: Window) -> tuple[Sample, list[Reject]]:
        """Cut and decode what the model asks for of a window; safe to call from many threads."""
        return cut(window, self.spec.inputs, self._limits)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One forward pass.

        Returns:
            One prediction for each sample, in the same order.

        Raises:
            ModelFault: The model's answer has the wrong shape or is not finite.
        """
        if not samples:
            return []
        inputs = self._to_device(collate(samples, self.spec.inputs, self._tokenizer))
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            return self._predictions(self._module(inputs), len(samples))

    def check(self) -> None:
        """Ask, after the model raised, whether the device still works.

        An illegal access or a failed assertion in a CUDA kernel breaks the whole context for the process: every later
        call fails, with windows that are healthy too.

        Raises:
            DeviceLost: It does not.
        """
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            raise DeviceLost(f"{self.device} is lost to this process: {error}") from error

    def warm_up(self, batch: int = 1) -> None:
        """Run one batch of empty windows, so that the first real one does not pay for the device's set-up."""
        self.predict([Sample(present=(False,) * 4, coverage=(0.0,) * 4)] * batch)

    def _to_device(self, inputs: Inputs) -> Inputs:
        if self.device.type != "cuda":
            return Inputs(*(None if part is None else part.to(self.device) for part in inputs))
        pinned = (None if part is None else part.pin_memory() for part in inputs)
        return Inputs(*(None if part is None else part.to(self.device, non_blocking=True) for part in pinned))

    def _predictions(self, outputs: Outputs, count: int) -> list[Prediction]:
        scores = {name: self._scores(name, outputs.logits.get(name), count) for name in self.spec.outputs}
        embedding_BD = outputs.embedding_BD.float().cpu().numpy()
        if embedding_BD.ndim != 2 or len(embedding_BD) != count or not np.isfinite(embedding_BD).all():
            raise ModelFault(f"embedding of shape {embedding_BD.shape} for {count} windows, or not finite")
        return [
            Prediction(
                {name: _decision(self.spec.outputs[name].labels, scores_BL[row]) for name, scores_BL in scores.items()},
                embedding_BD[row].astype(np.float16),
            )
            for row in range(count)
        ]

    def _scores(self, name: str, logits_BL: Tensor | None, count: int) -> NDArray[np.float32]:
        wanted = (count, len(self.spec.outputs[name].labels))
        if logits_BL is None or tuple(logits_BL.shape) != wanted:
            shape = None if logits_BL is None else tuple(logits_BL.shape)
            raise ModelFault(f"output {name} has shape {shape}, not {wanted}")
        scores_BL: NDArray[np.float32] = logits_BL.float().softmax(-1).cpu().numpy()
        if not np.isfinite(scores_BL).all():
            raise ModelFault(f"output {name} is not finite")
        return scores_BL


def predict_each(predictor: Predictor, samples: Sequence[Sample]) -> list[Prediction | BaseException]:
    """Predict a batch; where the model raises, halve it until the samples that do it are alone.

    Not for the main thread: what the model raises may be anything, and so an interrupt would be taken for it.

    Returns:
        For each sample, in the same order, its prediction, or what the model raised on it alone.

    Raises:
        DeviceLost: No sample is to blame.
    """
    try:
        return [*predictor.predict(samples)]
    except BaseException as error:  # noqa: BLE001 - a model is the user's code and may raise anything
        predictor.check()
        if len(samples) == 1:
            return [error]
        middle = len(samples) // 2
        return predict_each(predictor, samples[:middle]) + predict_each(predictor, samples[middle:])


def _decision(labels: Sequence[str], scores_L: NDArray[np.float32]) -> dict[str, Any]:
    best = int(scores_L.argmax())
    scores = {label: round(float(score), SCORE_DIGITS) for label, score in zip(labels, scores_L, strict=True)}
    return {"label": labels[best], "score": scores[labels[best]], "scores": scores}


def pick_device(name: str) -> torch.device:
    """The device that a setting names.

    Raises:
        UsageError: This machine, or this build of PyTorch, does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise UsageError(f"device {name!r} is not available here; STREAMER_DEVICE=auto takes what there is")
    return device
