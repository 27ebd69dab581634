"""What a network knows of its own limits: ``calibration.safetensors``, which `streamer calibrate` and training write.

- A temperature for each output: logits divided by it give probabilities that are right as often as they say (Guo et
  al. 2017). It depends on which sensors a window lacks, since a network that has only heard is sure too soon.
- For each sensor how its vectors in the common space lay in training: mean and whitened axes. The Mahalanobis distance
  from there, divided by the one that ``FAMILIAR`` of the validation windows stay within, is a sensor's *novelty*:
  above 1 it shows what the model has not met (Lee et al. 2018, with one Gaussian a sensor, so that missing sensors
  change nothing).

Shape suffixes: N windows · D dimensions of the common space · S sensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from streamer.errors import ModelError, one_line
from streamer.model.repository import replace

CALIBRATION_FILE = "calibration.safetensors"
FAMILIAR = 0.999  # share of the validation windows whose novelty is at most 1
NOVELTY_DIGITS = 2

Floats = NDArray[np.float32]


class Familiar(msgspec.Struct, frozen=True):
    """How a sensor's vectors lay in training.

    Attributes:
        whitening_DD: Turns deviations from the mean into ones of unit variance without correlation.
        far: The Mahalanobis distance that counts as novelty 1.
    """

    mean_D: Floats
    whitening_DD: Floats
    far: float

    def novelty(self, own_ND: Floats) -> Floats:
        """Distance of each vector in units of ``far`` [N]."""
        distance_N: Floats = np.linalg.norm((own_ND - self.mean_D) @ self.whitening_DD, axis=1)
        return distance_N / np.float32(self.far)


class Temperature(msgspec.Struct, frozen=True):
    """Of an output.

    Attributes:
        whole: Logarithm of the temperature where no sensor is missing.
        absent: Sensor -> what is added to it where that is missing.
        alone: Sensor -> what is added to it where all others are missing.
    """

    whole: float
    absent: dict[str, float] = {}
    alone: dict[str, float] = {}

    def of(self, present: Sequence[frozenset[str]]) -> Floats:
        """The temperatures of windows that have these sensors [N]."""
        return np.exp(np.array([self._log(here & self.absent.keys()) for here in present], np.float32))

    def _log(self, present: frozenset[str]) -> float:
        log = self.whole + sum(more for name, more in self.absent.items() if name not in present)
        return log + (sum(self.alone.get(name, 0.0) for name in present) if len(present) == 1 else 0.0)


class Calibration(msgspec.Struct, frozen=True):
    """A model's calibration.

    Attributes:
        temperatures: Of the outputs that have one; others are as the network says them.
        sensors: Of those whose vectors were seen often enough in training.
        version: The first 4 hex digits of the file's SHA-256; empty if there is no file.
    """

    temperatures: dict[str, Temperature] = {}
    sensors: dict[str, Familiar] = {}
    version: str = ""

    def novelties(self, parts: dict[str, tuple[Floats, NDArray[np.bool_]]], count: int) -> list[dict[str, float]]:
        """Sensor -> novelty, for each of ``count`` windows; without the sensors that a window does not have.

        Args:
            parts: Sensor -> its vectors [N, D] and which windows have it [N]; from the network.
        """
        found: list[dict[str, float]] = [{} for _ in range(count)]
        for name, familiar in self.sensors.items():
            if name in parts:
                own_ND, present_N = parts[name]
                novelty_N = familiar.novelty(own_ND)
                for row in np.flatnonzero(present_N).tolist():
                    found[row][name] = round(float(novelty_N[row]), NOVELTY_DIGITS)
        return found


def write(folder: Path, calibration: Calibration, weights_hash: str) -> Path:
    """Write a model's calibration; a reader never sees half a file.

    Args:
        weights_hash: SHA-256 of the weights that it was measured with.
    """
    tensors = {}
    for name, temperature in calibration.temperatures.items():
        tensors[f"temperature.{name}"] = np.array([temperature.whole], np.float32)
        for what, table in (("absent", temperature.absent), ("alone", temperature.alone)):
            tensors |= {f"{what}.{sensor}.{name}": np.array([more], np.float32) for sensor, more in table.items()}
    for name, familiar in calibration.sensors.items():
        tensors[f"mean.{name}"], tensors[f"whitening.{name}"] = familiar.mean_D, familiar.whitening_DD
        tensors[f"far.{name}"] = np.array([familiar.far], np.float32)
    path = folder / CALIBRATION_FILE
    replace(path, lambda new: save_file(tensors, new, metadata={"weights": weights_hash}))
    return path


def read(folder: Path, weights_hash: str) -> Calibration:
    """The calibration of a model folder; an empty one if it has none.

    Raises:
        ModelError: It is broken, or was measured with other weights.
    """
    path = folder / CALIBRATION_FILE
    again = f"make it with `streamer calibrate {folder}`, or delete it"
    if not path.is_file():
        return Calibration()
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            made_with = (file.metadata() or {}).get("weights")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {one_line(error)}; {again}") from error
    if made_with != weights_hash:
        raise ModelError(f"{path} was measured with other weights than the ones beside it; {again}")
    broken = next((name for name, tensor in tensors.items() if not np.isfinite(tensor).all()), None)
    if broken:
        raise ModelError(f"{path}: {broken} holds numbers that are not finite; {again}")
    try:
        return Calibration(
            {name: _temperature(name, tensors) for name in _named("temperature", tensors)},
            {
                name: Familiar(tensors[f"mean.{name}"], tensors[f"whitening.{name}"], float(tensors[f"far.{name}"][0]))
                for name in _named("mean", tensors)
            },
            hashlib.sha256(path.read_bytes()).hexdigest()[:4],
        )
    except (KeyError, IndexError) as error:
        raise ModelError(f"{path} lacks {one_line(error)}; {again}") from error


def _temperature(output: str, tensors: Mapping[str, Floats]) -> Temperature:
    absent, alone = (
        {
            sensor: float(tensors[f"{what}.{sensor}.{output}"][0])
            for sensor, _, of in (name.partition(".") for name in _named(what, tensors))
            if of == output
        }
        for what in ("absent", "alone")
    )
    return Temperature(float(tensors[f"temperature.{output}"][0]), absent, alone)


def _named(what: str, tensors: Mapping[str, Floats]) -> list[str]:
    return [name.removeprefix(f"{what}.") for name in tensors if name.startswith(f"{what}.")]
