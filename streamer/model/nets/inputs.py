"""The tensors that go into a model and come out of it. The shape suffixes of all of ``nets``:

B windows · F frames · H height · W width · S audio samples · C channels (3 colours, telemetry channels, features)
M mel bands · T text tokens, telemetry grid points or time steps · N tokens of an encoder · Q queries
D width of the common embedding space · L labels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

JOINT = "__"  # between a sensor and the name of its tensor, where tensors have flat names; no sensor's name has it


class Inputs(NamedTuple):
    """A batch of windows; ``None`` where the model has no such input.

    Where a mask is False the content is undefined and cannot affect the output. A sensor that a window lacks has no
    True in its mask. ``more`` has the sensors that are not called like their kind: each as a batch that has nothing
    else, e.g. ``inputs.more["camera_rear"].image_BFCHW``; :meth:`of` finds it in either place. ``others`` has tensors
    of kinds that have no fields here, by name.
    """

    image_BFCHW: Tensor | None = None  # uint8, RGB
    image_mask_BF: Tensor | None = None
    audio_BS: Tensor | None = None  # float32 in [-1, 1]
    audio_mask_BS: Tensor | None = None
    text_BT: Tensor | None = None  # int64 token numbers
    text_mask_BT: Tensor | None = None
    text_overlap_BT: Tensor | None = None  # float32: share of the token's transcript that is in the window
    telemetry_BCT: Tensor | None = None  # float32 in the producer's units
    telemetry_mask_BCT: Tensor | None = None
    more: dict[str, Inputs] | None = None
    others: dict[str, Tensor] | None = None

    def of(self, sensor: str) -> dict[str, Tensor]:
        """The tensors of a sensor by their names here; empty if there is no such input."""
        if self.more is not None and sensor in self.more:
            return self.more[sensor].tensors()
        own = self._asdict()
        return {name: own[name] for name in own if name.startswith(f"{sensor}_") and own[name] is not None}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; those of ``more`` as ``camera_rear__image_BFCHW``."""
        own = (*self._asdict().items(), *(self.others or {}).items())
        found = {name: part for name, part in own if name not in ("more", "others") and part is not None}
        for sensor, part in (self.more or {}).items():
            found |= {f"{sensor}{JOINT}{name}": tensor for name, tensor in part.tensors().items()}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Inputs:
        """What :meth:`tensors` took apart."""
        own: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if JOINT not in name}
        others = {name: own.pop(name) for name in [*own] if name not in cls._fields}
        more: dict[str, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            sensor, joint, field = name.partition(JOINT)
            if joint:
                more.setdefault(sensor, {})[field] = tensor
        parts = {sensor: cls.from_tensors(part) for sensor, part in more.items()}
        return cls(**own, more=parts or None, others=others or None)

    def each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor changed, e.g. moved to a device."""
        return self.from_tensors({name: change(tensor) for name, tensor in self.tensors().items()})

    def mask(self, sensor: str) -> Tensor | None:
        """The mask of a sensor; ``None`` if there is no such input."""
        return next((tensor for name, tensor in self.of(sensor).items() if _is_mask(name)), None)

    def has(self, sensor: str) -> Tensor:
        """Which windows have any content of a sensor, bool [B]; the model must have the input."""
        return cast(Tensor, self.mask(sensor)).flatten(1).any(1)

    def shown_in(self, shown: Mapping[str, Tensor]) -> Inputs:
        """The same windows with sensors masked.

        Args:
            shown: Sensor -> in which windows it stays, bool [B]; sensors not named stay in all.
        """
        changed = self
        for sensor, shown_B in shown.items():
            masks: dict[str, Any] = {
                name: tensor & shown_B.view(-1, *[1] * (tensor.ndim - 1))
                for name, tensor in self.of(sensor).items()
                if _is_mask(name)
            }
            if changed.more is not None and sensor in changed.more:
                changed = changed._replace(
                    more={**changed.more, sensor: self.from_tensors({**changed.more[sensor].tensors(), **masks})}
                )
            else:
                changed = changed._replace(**masks)
        return changed

    def without(self, sensor: str) -> Inputs:
        """The same windows with one sensor masked everywhere; the model must have the input."""
        return self.shown_in({sensor: torch.zeros_like(self.has(sensor))})


def _is_mask(name: str) -> bool:
    return "_mask_" in name


class Outputs(NamedTuple):
    """A model's outputs for a batch of windows."""

    logits: dict[str, Tensor]  # head -> [B, L]
    embedding_BD: Tensor  # the fused vector in the common embedding space, length 1
    parts: dict[str, tuple[Tensor, Tensor]]  # sensor -> ([B, D] in that space, length 1; [B] present)
