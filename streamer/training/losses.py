"""The losses of training. Shape suffixes: see ``model/nets/inputs.py``; P counts windows that have both of a pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.model.nets.inputs import Inputs
from streamer.model.spec import Output
from streamer.training.targets import NO_CLASS, labelled, only_where

FIRST_TEMPERATURE, LEAST_TEMPERATURE = 0.1, 0.01  # the latter as in CLIP


def task_loss(
    logits: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    outputs: Mapping[str, Output],
    deviations: Mapping[str, float],
) -> Tensor:
    """Sum over the outputs of the mean loss of the windows that have a label for it.

    Cross-entropy for classes, binary cross-entropy for tags (mean over the labels), Huber loss (Huber 1964) for
    numbers, in standard deviations, so that the unit does not matter.

    Args:
        logits: Output -> [B, L]; of a number [B, 1] in its unit.
        targets: As :func:`streamer.training.targets.targets_of` makes them.
        deviations: Of each number, in its unit.

    Returns:
        A scalar; an output without any label adds 0.
    """
    losses = [
        _loss(logits[name].float(), targets[name], output, deviations.get(name, 1.0))
        for name, output in outputs.items()
    ]
    return torch.stack(losses).sum()


def _loss(logits_BL: Tensor, target: Tensor, output: Output, deviation: float) -> Tensor:
    if output.kind == "classes":
        total = functional.cross_entropy(logits_BL, target, ignore_index=NO_CLASS, reduction="sum")
        return total / labelled(target).sum().clamp_min(1)
    there_B = labelled(target)
    if output.kind == "tags":
        wanted_BL = torch.where(there_B[:, None], target, 0.0)
        loss_B = functional.binary_cross_entropy_with_logits(logits_BL, wanted_BL, reduction="none").mean(1)
    else:
        off_B = (logits_BL[:, 0] - target) / deviation
        loss_B = functional.huber_loss(torch.where(there_B, off_B, 0.0), torch.zeros_like(target), reduction="none")
    return (loss_B * there_B).sum() / there_B.sum().clamp_min(1)


class Contrast(nn.Module):
    """Pull the vectors of a window together, and away from other windows': one embedding space for all sensors.

    Symmetric InfoNCE with a learned temperature (CLIP, Radford et al. 2021) between every two sensors, and between
    each sensor and the fused vector, which links sensors that are rarely in the same window, as images do in
    ImageBind (Girdhar et al. 2023). Negatives are the other windows of the same process and forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))

    def forward(self, parts: Mapping[str, tuple[Tensor, Tensor]], fused_BD: Tensor, same_BB: Tensor) -> Tensor:
        """Compare every two sensors, and each with the fused vector.

        Args:
            parts: Sensor -> (vectors [B, D] of length 1, present [B]).
            same_BB: Which windows have the same content: these are not negatives of one another.

        Returns:
            The mean over the pairs, a scalar; 0 if there is no pair to compare.
        """
        somewhere_B = torch.zeros(len(fused_BD), dtype=torch.bool, device=fused_BD.device)
        for _, present_B in parts.values():
            somewhere_B = somewhere_B | present_B
        spaces = [*parts.values(), (fused_BD, somewhere_B)]
        losses = [
            self._pair(one_BD, other_BD, here_B & there_B, same_BB)
            for (one_BD, here_B), (other_BD, there_B) in combinations(spaces, 2)
            if int((here_B & there_B).sum()) > 1
        ]
        # no pairs: still a function of the parameters, as other processes expect gradients of them
        return torch.stack(losses).mean() if losses else (fused_BD.sum() + self.log_temperature) * 0.0

    def _pair(self, one_BD: Tensor, other_BD: Tensor, both_B: Tensor, same_BB: Tensor) -> Tensor:
        temperature = self.log_temperature.exp().clamp_min(LEAST_TEMPERATURE)
        similarity_PP = one_BD[both_B].float() @ other_BD[both_B].float().T / temperature
        own_P = torch.arange(len(similarity_PP), device=similarity_PP.device)
        alike_PP = same_BB[both_B][:, both_B] & (own_P[:, None] != own_P)
        similarity_PP = similarity_PP.masked_fill(alike_PP, float("-inf"))
        there, back = (functional.cross_entropy(s_PP, own_P) for s_PP in (similarity_PP, similarity_PP.T))
        return (there + back) / 2


class Probes(nn.Module):
    """A linear probe (Alain & Bengio 2016) for each output on each sensor's vector.

    Args:
        widths: Sensor -> length of its vectors.
        numbers: Output of kind number -> mean and deviation of its targets, in its unit.
    """

    def __init__(
        self, widths: Mapping[str, int], outputs: Mapping[str, Output], numbers: Mapping[str, tuple[float, float]]
    ) -> None:
        super().__init__()
        self._outputs, self._numbers = outputs, numbers
        self.probes = nn.ModuleDict(
            {
                sensor: nn.ModuleDict({name: nn.Linear(width, output.size) for name, output in outputs.items()})
                for sensor, width in widths.items()
            }
        )

    def forward(self, parts: Mapping[str, tuple[Tensor, Tensor]], targets: Mapping[str, Tensor]) -> Tensor:
        """The task's loss of each sensor alone.

        Args:
            parts: Sensor -> (vectors [B, D] of length 1, present [B]).

        Returns:
            The mean over the sensors, a scalar.
        """
        losses = []
        for sensor, probes in self.probes.items():
            part_BD, present_B = parts[sensor]
            scaled_BD = part_BD * part_BD.shape[1] ** 0.5  # entries of a vector of length 1 are too small
            logits = {name: probe(scaled_BD) for name, probe in cast(nn.ModuleDict, probes).items()}
            for name, (mean, deviation) in self._numbers.items():
                logits[name] = mean + deviation * logits[name]
            own = {name: only_where(target, present_B) for name, target in targets.items()}
            deviations = {name: deviation for name, (_, deviation) in self._numbers.items()}
            losses.append(task_loss(logits, own, self._outputs, deviations))
        return torch.stack(losses).mean()


def same_content(targets: Mapping[str, Tensor], outputs: Mapping[str, Output], inputs: Inputs) -> Tensor:
    """Which windows of a batch have the same content, so that the contrast must not push them apart.

    Two windows with words are compared by their words, which are more specific than a label; others by the classes and
    tags that both have. Numbers are not compared; windows without labels are all different.

    Returns:
        bool [B, B].
    """
    like = next(iter(inputs.tensors().values()))
    count, device = len(like), like.device
    known_BB = torch.zeros(count, count, dtype=torch.bool, device=device)
    differ_BB = torch.zeros_like(known_BB)
    for name, output in outputs.items():
        if output.kind != "number":
            there_B, target_BX = labelled(targets[name]), targets[name].view(count, -1)
            both_BB = there_B[:, None] & there_B
            known_BB |= both_BB
            differ_BB |= both_BB & (target_BX[:, None] != target_BX).any(-1)
    same_BB = known_BB & ~differ_BB
    if inputs.text_BT is not None and inputs.text_mask_BT is not None:
        words_BT = torch.where(inputs.text_mask_BT, inputs.text_BT, -1)
        spoken_B = inputs.text_mask_BT.any(1)
        same_words_BB = (words_BT[:, None] == words_BT).all(-1)
        same_BB = torch.where(spoken_B[:, None] & spoken_B, same_words_BB, same_BB)
    return same_BB
