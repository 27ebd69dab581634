"""Window -> tensors -> model -> prediction.

``decode`` is for a pool of threads (libjpeg, Pillow and NumPy release the GIL), ``predict`` for one thread per device.
Shape suffixes: see ``nets/inputs.py``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from streamer.errors import DeviceLost, ModelError, StreamerError, UsageError, one_line
from streamer.events import KIND_NAMES, ClosedBy, Window
from streamer.model import calibration, forms, repository
from streamer.model.calibration import Calibration
from streamer.model.collate import collate
from streamer.model.handling import handling
from streamer.model.nets.encoders import Tokens
from streamer.model.nets.inputs import Inputs, Outputs
from streamer.model.nets.model import FusedModel
from streamer.model.sample import Known, Limits, Reject, Sample, cut
from streamer.model.sensing import Sensing
from streamer.model.spec import SCORE_DIGITS, VALUE_DIGITS, ModelSpec, Output, decided, read_spec
from streamer.result import Result, ranges
from streamer.settings import Settings

TAG_THRESHOLD = 0.5  # least probability of a tag that is reported
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # kind of output -> function of its logits
    "classes": partial(torch.softmax, dim=-1),
    "tags": torch.sigmoid,
    "number": torch.Tensor.float,
}


class Prediction(msgspec.Struct, frozen=True):
    """What the model says about one window.

    Attributes:
        outputs: Head -> its output. Classes: ``{"label": …, "score": …, "scores": {label: score}}``; tags:
            ``{"labels": [those with a score of 0.5 or more], "scores": {label: score}}``; a number: ``{"value": …,
            "unit": …}``. Scores are probabilities. Ready senses have thresholds of their own, ``"counts": {label:
            number}`` with tags that are counted, and ``{"text": …}``; what they had nothing to judge by is absent.
        embedding: float16 [D], length 1: the window in the common embedding space; empty if a model of ready senses has
            no words for it.
        novelty: Sensor -> how far what it shows is from all that it showed in training; above 1 it is strange to the
            model. Empty without a calibration.
        encoded: See :class:`streamer.model.sample.Sample`; empty unless asked for, and if the model has no such parts.

    An output has a ``"severity"`` if the model's ``[severity]`` grades it. One with ``"unsure": True`` is not to be
    acted on: the best label's score is below the model's threshold, or a sensor is strange to it.
    """

    outputs: dict[str, Any]
    embedding: NDArray[np.float16]
    novelty: dict[str, float] = {}
    encoded: dict[str, tuple[Tensor, Tensor]] = {}


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
    """The result to publish for a window: the final one, unless the window is open.

    Args:
        sample: What the model was given.
        prediction: ``None`` if the model raised, or was not run.
        topics: Full names of the source topics, in the order of the kinds.
        status: See :class:`streamer.result.Result`.
    """
    names = window.sensors.names
    return Result(
        session=window.session,
        start_us=window.start_us,
        end_us=window.end_us,
        closed_by=str(window.closed_by),
        present=tuple(name for name, here in zip(names, sample.present, strict=True) if here),
        coverage=dict(zip(names, sample.coverage, strict=True)),
        members=_members(window, topics),
        outputs=prediction.outputs if prediction is not None else {},
        embedding=prediction.embedding.tobytes() if prediction is not None else b"",
        novelty=prediction.novelty if prediction is not None else {},
        model=model,
        version=version,
        status=status,
        latencies_us=latencies_us if latencies_us is not None else {},
        final=window.closed_by is not ClosedBy.OPEN,
    )


def _members(window: Window, topics: Sequence[str]) -> dict[str, tuple[tuple[int, int], ...]]:
    """Offset ranges by topic: those of all sensors of a kind are one."""
    offsets: dict[str, list[int]] = {}
    for row, events in zip(window.sensors.rows, window.events, strict=True):
        if events:
            offsets.setdefault(topics[row], []).extend(event.record.offset for event in events)
    return {topic: ranges(found) for topic, found in offsets.items()}


Vectors = tuple[NDArray[np.float32], NDArray[np.bool_]]  # [N, D], each of length 1, and which samples have one [N]


class ModelFault(StreamerError):
    """The model's output cannot be a prediction; the batch, or a window in it, caused this."""


class Predictor(ABC):
    """A loaded model: what a worker, a search and a measurement need of one.

    Attributes:
        spec: Its ``model.toml``.
        name, version: For results; the version identifies the weights.
        device: Where it runs.
    """

    def __init__(self, spec: ModelSpec, version: str, device: torch.device, limits: Limits) -> None:
        self.spec = spec
        self.name = spec.name
        self.version = version
        self.device = device
        self._limits = limits
        for kind in KIND_NAMES:
            handling(kind)  # imported now, so that the first window need not wait for it

    @staticmethod
    def load(
        folder: Path,
        device: str = "auto",
        settings: Settings | None = None,
        threads: int | None = None,
        form: str | None = None,
    ) -> Predictor:
        """Load a model folder of either kind: ready senses, or a network; arguments as in :meth:`Network.load`.

        Raises:
            ModelError: The folder cannot be loaded, or not in this form.
            UsageError: There is no such device.
        """
        spec = read_spec(folder)
        if spec.senses is None:
            return Network.load(folder, device, settings, threads, form)
        settings = settings if settings is not None else Settings()
        form = form or settings.model_form
        if form != forms.EAGER:
            raise ModelError(
                f"{folder} is made of ready senses, which have no form {form}: set STREAMER_MODEL_FORM=eager"
            )
        try:
            return Senses(spec, Sensing(spec, settings, folder), Limits.of(settings))
        except UsageError as error:
            raise ModelError(f"{folder}: {error}") from None

    @property
    def judged(self) -> tuple[str, ...]:
        """The sensors of which it says how strange they are; none without a calibration."""
        return ()

    def decode(self, window: Window, known: Known | None = None) -> tuple[Sample, list[Reject]]:
        """Cut and decode what the model needs of a window; thread-safe.

        Args:
            known: What this predictor has found in the window before.
        """
        return cut(window, self.spec.inputs, self._limits, known)

    def usable(self, sample: Sample) -> bool:
        """Whether the sample has anything of what the model takes; one that has not is not run."""
        inputs = self.spec.inputs.all
        return any(here and name in inputs for name, here in zip(sample.sensors.names, sample.present, strict=True))

    @abstractmethod
    def predict(self, samples: Sequence[Sample], *, keep: bool = False) -> list[Prediction]:
        """Judge windows, all in one batch.

        Args:
            keep: Let the predictions have what a further run of the window can begin with.

        Returns:
            One prediction for each sample, in the same order.

        Raises:
            ModelFault: The model's answer has the wrong shape or is not finite.
        """

    @abstractmethod
    def embed(self, samples: Sequence[Sample], sensor: str) -> NDArray[np.float32]:
        """The vectors of one sensor, comparable with the published embeddings.

        Args:
            samples: At least one; only their content of this sensor is used.
            sensor: One that the model has an input for.

        Returns:
            float32 [N, D], each of length 1; zeros for a sample in which ready senses recognise nothing.

        Raises:
            ModelError: The model has no vectors of this sensor.
            ModelFault: A vector is not finite, the sensor is absent from a sample, or nothing is recognised in any.
        """

    def check(self) -> None:
        """Test, after the model raised, whether the device still works.

        An illegal access or a failed assertion in a CUDA kernel breaks the process's whole CUDA context: every later
        call fails, with healthy windows too.

        Raises:
            DeviceLost: The device does not work.
        """
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            raise DeviceLost(f"{self.device} is lost to this process: {error}") from error

    def warm_up(self, batch: int = 1) -> None:
        """Run one batch of empty windows, so that the first real one does not pay for the device's set-up.

        Raises:
            ModelError: The model fails on it.
        """
        try:
            self.predict([self._first()] * batch)
        except Exception as error:  # the model may be the user's code, and compilers raise anything
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ModelError(f"model {self.name} fails on an empty window: {what}") from error

    def _graded(self, name: str, said: dict[str, Any]) -> dict[str, Any]:
        """An output with its severity, if the model has one for it."""
        severity = self.spec.severity_of(name, said)
        return said if severity is None else {**said, "severity": severity}

    def _first(self) -> Sample:
        """The window to warm up with."""
        return Sample.empty()


class Senses(Predictor):
    """Ready senses, on the CPU."""

    def __init__(self, spec: ModelSpec, sensing: Sensing, limits: Limits) -> None:
        super().__init__(spec, sensing.version, torch.device("cpu"), limits)
        self._sensing = sensing

    def predict(self, samples: Sequence[Sample], *, keep: bool = False) -> list[Prediction]:
        """See :class:`Predictor`; each network runs once for all windows."""
        return [
            Prediction({name: self._graded(name, said) for name, said in outputs.items()}, vector_D.astype(np.float16))
            for outputs, vector_D in self._sensing.judge(samples)
        ]

    def embed(self, samples: Sequence[Sample], sensor: str) -> NDArray[np.float32]:
        """See :class:`Predictor`; pictures, sounds and telemetry are put into words first."""
        if not self._sensing.embeds:
            raise ModelError(f"model {self.name} has no vectors: add [senses.sentences] to its model.toml")
        texts = self._sensing.words(samples, sensor)
        if not any(texts):
            raise ModelFault(f"it recognises nothing in the {sensor}")
        return self._sensing.vectors(texts)

    def _first(self) -> Sample:
        return self._sensing.plain()


class Network(Predictor):
    """A network on a device, in any of its forms."""

    def __init__(
        self,
        model: repository.Model,
        device: torch.device,
        limits: Limits,
        calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    ) -> None:
        version = f"{model.version}.{calibration.version}" if calibration.version else model.version
        super().__init__(model.spec, version, device, limits)
        self._module = model.module.to(device)
        self._tokenizer = model.tokenizer
        self._calibration = calibration

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "auto",
        settings: Settings | None = None,
        threads: int | None = None,
        form: str | None = None,
    ) -> Network:
        """Load a model folder onto a device.

        Args:
            device: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            settings: They have the limits of decoding; ``None``: the defaults.
            threads: CPU threads of one forward pass, for the whole process; ``None``: ``OMP_NUM_THREADS``, else half
                of the cores that the process may use, since decoding, Kafka and Redis need some (and two threads take
                a fifth more CPU time than one for the same batch).
            form: One of ``streamer.model.forms``; ``None``: that of the settings, else eager.

        Raises:
            ModelError: The folder cannot be loaded, or not in this form.
            UsageError: There is no such device.
        """
        if threads is None and not os.environ.get("OMP_NUM_THREADS"):  # else PyTorch has applied it
            threads = max(1, usable_cores() // 2)
        if threads is not None:
            torch.set_num_threads(threads)
        limits = Limits.of(settings) if settings is not None else Limits()
        there = pick_device(device)
        form = form or (settings.model_form if settings is not None else forms.EAGER)
        if settings is not None:
            forms.check_window(folder, form, settings.window_ms)
        model = forms.read(folder, form, there)
        return cls(model, there, limits, calibration.read(folder, model.weights))

    @property
    def judged(self) -> tuple[str, ...]:
        """See :class:`Predictor`."""
        return tuple(self._calibration.sensors)

    def predict(self, samples: Sequence[Sample], *, keep: bool = False) -> list[Prediction]:
        """See :class:`Predictor`; one forward pass, of which each encoder runs for the samples that lack its tokens."""
        if not samples:
            return []
        encoded: dict[str, Tokens] = {}
        with torch.inference_mode():
            if isinstance(self._module, FusedModel) and (keep or any(sample.encoded for sample in samples)):
                with self._precision():
                    encoded = self._encoded(self._module, samples)
                    outputs = self._module.fused(encoded)
            else:
                outputs = self._outputs(samples)
            said, embedding_BD = self._checked(outputs, samples)
            judged = {name: outputs.parts[name] for name in self._calibration.sensors if name in outputs.parts}
            novelties = self._calibration.novelties(_arrays(judged), len(samples))
        return [
            Prediction(
                {name: self._decision(name, said_BL[row], novelty) for name, said_BL in said.items()},
                embedding_BD[row].astype(np.float16),
                novelty,
                {name: (tokens[row], mask[row]) for name, (tokens, mask) in encoded.items()} if keep else {},
            )
            for row, novelty in enumerate(novelties)
        ]

    def _decision(self, name: str, said_L: NDArray[np.float32], novelty: dict[str, float]) -> dict[str, Any]:
        said = _decision(self.spec.outputs[name], said_L)
        strange = any(far > 1 for far in novelty.values())
        if strange or said.get("score", 1.0) < self.spec.unsure_below.get(name, 0.0):
            said["unsure"] = True
        return self._graded(name, said)

    def answer(self, samples: Sequence[Sample]) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """One forward pass, not yet rounded.

        Args:
            samples: At least one.

        Returns:
            Probabilities or values [B, L] by output, and embedding [B, D].

        Raises:
            ModelFault: The model's answer has the wrong shape or is not finite.
        """
        with torch.inference_mode():
            return self._checked(self._outputs(samples), samples)

    def embed(self, samples: Sequence[Sample], sensor: str) -> NDArray[np.float32]:
        """See :class:`Predictor`; one forward pass."""
        parts, _ = self.vectors(samples)
        if sensor not in parts:
            raise ModelError(f"model {self.name} has no vectors of {sensor}; it has {', '.join(parts) or 'none'}")
        own_ND, present_N = parts[sensor]
        if not (present_N.all() and np.isfinite(own_ND).all()):
            raise ModelFault(f"vectors of {sensor} are not finite, or a sample has no {sensor}")
        return own_ND

    def vectors(self, samples: Sequence[Sample]) -> tuple[dict[str, Vectors], NDArray[np.float32]]:
        """One forward pass for all vectors in the common embedding space.

        Returns:
            The vectors by sensor (empty if the form keeps none), and the embeddings [N, D].
        """
        with torch.inference_mode():
            outputs = self._outputs(samples)
            return _arrays(outputs.parts), outputs.embedding_BD.float().cpu().numpy()

    def _outputs(self, samples: Sequence[Sample]) -> Outputs:
        inputs = self._to_device(collate(samples, self.spec.inputs, self._tokenizer))
        with self._precision():
            outputs: Outputs = self._module(inputs)
            return outputs

    def _precision(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    def _encoded(self, module: FusedModel, samples: Sequence[Sample]) -> dict[str, Tokens]:
        """Tokens of all sensors: those that samples have, and new ones."""
        found: dict[str, Tokens] = {}
        for name in module.encoder_of:
            fresh = [sample for sample in samples if name not in sample.encoded]
            tokens: Tokens | None = None
            if fresh:
                inputs = collate(fresh, self.spec.inputs, self._tokenizer, [name])
                tokens = module.encoded(name, self._to_device(inputs))
            if tokens is None or len(fresh) < len(samples):
                new = iter(zip(*tokens, strict=True)) if tokens is not None else iter(())
                rows = [sample.encoded[name] if name in sample.encoded else next(new) for sample in samples]
                # windows differ in length where words do; what is added is masked
                padded = [pad_sequence(list(part), batch_first=True) for part in zip(*rows, strict=True)]
                tokens = padded[0], padded[1]
            found[name] = tokens
        return found

    def _to_device(self, inputs: Inputs) -> Inputs:
        if self.device.type != "cuda":
            return inputs.each(lambda tensor: tensor.to(self.device))
        return inputs.each(lambda tensor: tensor.pin_memory()).each(
            lambda tensor: tensor.to(self.device, non_blocking=True)
        )

    def _checked(
        self, outputs: Outputs, samples: Sequence[Sample]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        count = len(samples)
        said = {name: self._said(name, outputs.logits.get(name), samples) for name in self.spec.outputs}
        embedding_BD: NDArray[np.float32] = outputs.embedding_BD.float().cpu().numpy()
        if embedding_BD.ndim != 2 or len(embedding_BD) != count or not np.isfinite(embedding_BD).all():
            raise ModelFault(f"embedding of shape {embedding_BD.shape} for {count} windows, or not finite")
        return said, embedding_BD

    def _said(self, name: str, logits_BL: Tensor | None, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Probabilities of classes and tags, values of a number [B, L]."""
        output = self.spec.outputs[name]
        wanted = (len(samples), output.size)
        if logits_BL is None or tuple(logits_BL.shape) != wanted:
            shape = None if logits_BL is None else tuple(logits_BL.shape)
            raise ModelFault(f"output {name} has shape {shape}, not {wanted}")
        logits_BL = logits_BL.float()
        if name in self._calibration.temperatures:
            present = [sensors_in(sample) for sample in samples]
            temperature_B = torch.from_numpy(self._calibration.temperatures[name].of(present))
            logits_BL = logits_BL / temperature_B.to(logits_BL.device)[:, None]
        said_BL: NDArray[np.float32] = ACTIVATIONS[output.kind](logits_BL).cpu().numpy()
        if not np.isfinite(said_BL).all():
            raise ModelFault(f"output {name} is not finite")
        return said_BL


def sensors_in(sample: Sample) -> frozenset[str]:
    """Names of the sensors that a window has."""
    return frozenset(n for n, here in zip(sample.sensors.names, sample.present, strict=True) if here)


def _arrays(parts: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Vectors]:
    return {
        name: (own_BD.float().cpu().numpy(), present_B.cpu().numpy()) for name, (own_BD, present_B) in parts.items()
    }


def predict_each(
    predictor: Predictor, samples: Sequence[Sample], *, keep: bool = False
) -> list[Prediction | BaseException]:
    """Predict a batch; if the model raises, halve the batch until each sample that causes it is alone.

    Not for the main thread: it catches all exceptions, so it would take an interrupt for the model's.

    Args:
        keep: See :meth:`Predictor.predict`.

    Returns:
        For each sample, in the same order, its prediction, or what the model raised on it alone.

    Raises:
        DeviceLost: The device no longer works; no sample is to blame.
    """
    try:
        return [*predictor.predict(samples, keep=keep)]
    except BaseException as error:  # noqa: BLE001 - a model is the user's code and may raise anything
        predictor.check()
        if len(samples) == 1:
            return [error]
        middle = len(samples) // 2
        halves = samples[:middle], samples[middle:]
        return [found for half in halves for found in predict_each(predictor, half, keep=keep)]


def _decision(output: Output, said_L: NDArray[np.float32]) -> dict[str, Any]:
    """A head's entry in a result: see :class:`Prediction`."""
    if output.kind == "number":
        return {"value": float(f"{said_L[0]:.{VALUE_DIGITS}g}"), "unit": output.unit}
    if output.kind == "classes":
        return decided(output.labels, said_L)
    scores = {label: round(float(score), SCORE_DIGITS) for label, score in zip(output.labels, said_L, strict=True)}
    return {"labels": [label for label, score in scores.items() if score >= TAG_THRESHOLD], "scores": scores}


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_uuid(device: torch.device) -> str | None:
    """The UUID by which NVIDIA's tools know a device; ``None`` if it is not NVIDIA's."""
    if device.type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


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
        raise UsageError(f"device {name!r} is not available here; STREAMER_DEVICE=auto takes one that is")
    return device
