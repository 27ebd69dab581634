"""Weights -> what they know of their limits: temperatures of the outputs, and what each sensor showed in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from sklearn.covariance import LedoitWolf
from torch import Tensor

from streamer.model.calibration import FAMILIAR, Calibration, Familiar, Temperature
from streamer.model.predictor import Network, sensors_in
from streamer.model.sample import only
from streamer.model.spec import Output
from streamer.terminal.progress import track
from streamer.training.batches import Dataset
from streamer.training.common_space import BATCH, vectors_of
from streamer.training.dataset import Example
from streamer.training.losses import task_loss
from streamer.training.targets import labelled, targets_of

SEEN = 4000  # most windows of each part that are looked at, evenly spread
LEAST = 100  # windows of training that must have a sensor, and of validation, before its novelty is told
LEAST_LABELS = 30  # windows of validation that must have a label of an output before it gets a temperature
HOTTEST = 3.0  # largest logarithm of a temperature
STEPS = 100  # of L-BFGS
PULL = 1e-4  # towards temperatures that do not depend on a sensor which hardly matters
FLOOR, ROUNDING = 1e-30, 1e-6  # least probability whose logarithm is taken; so near to 0 and 1 tags' are told apart


def calibrate(network: Network, training: Dataset, validation: Dataset, console: Console) -> Calibration:
    """Measure a network that has no calibration yet.

    Args:
        training: Where its sensors' vectors lie is familiar.
        validation: Other windows, for the temperatures and for how far away is still familiar. Temperatures are fitted
            with all sensors, each alone and each missing, which count alike.
    """
    held = _spread(validation)
    learnt, others = (
        {name: own_ND[present_N] for name, (own_ND, present_N) in vectors_of(network, windows, what, console).items()}
        for windows, what in ((_spread(training), "what training looked like"), (held, "what else is familiar"))
    )
    sensors: dict[str, Familiar] = {}
    for name in network.spec.inputs.all:
        own_ND, other_ND = learnt.get(name), others.get(name)
        if own_ND is None or other_ND is None or min(len(own_ND), len(other_ND)) < LEAST:
            console.log(f"{name}: too few windows have it (or the network keeps no vectors): no novelty is told of it")
            continue
        sensors[name] = _familiar(own_ND, other_ND)
    return Calibration(_temperatures(network, held, console), sensors)


def _spread(windows: Dataset) -> list[Example]:
    places = np.linspace(0, len(windows) - 1, min(SEEN, len(windows))).astype(int)
    return [windows[n] for n in places.tolist()]


def _familiar(own_ND: NDArray[np.float32], other_ND: NDArray[np.float32]) -> Familiar:
    """A Gaussian with the covariance of Ledoit and Wolf (2004), which is sound for few windows of many dimensions."""
    found = LedoitWolf().fit(own_ND.astype(np.float64))
    whitening_DD = np.linalg.cholesky(found.precision_).astype(np.float32)
    near = Familiar(found.location_.astype(np.float32), whitening_DD, 1.0)
    return Familiar(near.mean_D, whitening_DD, float(np.quantile(near.novelty(other_ND), FAMILIAR)))


def _temperatures(network: Network, windows: Sequence[Example], console: Console) -> dict[str, Temperature]:
    """Output of classes or tags -> the temperatures of the least loss."""
    outputs = {name: output for name, output in network.spec.outputs.items() if output.kind in ("classes", "tags")}
    said: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    labels: list[Mapping[str, Any]] = []
    lacks: list[frozenset[str]] = []
    every = frozenset(network.spec.inputs.all)
    shown = sets_of(sorted(every))
    for start in track(range(0, len(windows), BATCH), "how sure it may be", console):
        batch = windows[start : start + BATCH]
        for names in shown.values():
            samples = [only(example.sample, names) for example in batch]
            answers, _ = network.answer(samples)
            lacks += [every - sensors_in(sample) for sample in samples]
            labels += [example.labels for example in batch]
            for name in outputs:
                said[name].append(answers[name])
    targets = targets_of(labels, outputs)
    temperatures = {}
    for name, output in outputs.items():
        there_N = labelled(targets[name])
        if int(there_N.sum()) < LEAST_LABELS * len(shown):
            console.log(f"{name}: too few windows have a label: its probabilities stay as they are")
            continue
        scores_NL = torch.from_numpy(np.concatenate(said[name]))
        logits_NL = scores_NL.clamp_min(FLOOR).log() if output.kind == "classes" else torch.logit(scores_NL, ROUNDING)
        temperatures[name] = _best(logits_NL, targets[name], output, lacks)
    return temperatures


def _best(logits_NL: Tensor, target: Tensor, output: Output, lacks: Sequence[frozenset[str]]) -> Temperature:
    """The temperatures of the least loss; ``lacks`` has the sensors that each window was shown without."""
    names = sorted(frozenset().union(*lacks))
    absent_NS = torch.tensor([[name in absent for name in names] for absent in lacks], dtype=torch.float32)
    alone_NS = (1 - absent_NS) * (absent_NS.sum(1, keepdim=True) == len(names) - 1)
    whole = torch.zeros(1, requires_grad=True)
    absent_S, alone_S = (torch.zeros(len(names), requires_grad=True) for _ in range(2))
    search = torch.optim.LBFGS([whole, absent_S, alone_S], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        log_N = whole + absent_NS @ absent_S + alone_NS @ alone_S
        said_NL = logits_NL / log_N.clamp(-HOTTEST, HOTTEST).exp()[:, None]
        loss = task_loss({"": said_NL}, {"": target}, {"": output}, {}) + PULL * (
            (absent_S**2).sum() + (alone_S**2).sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(loss)  # type: ignore[no-untyped-call]
    tables = (dict(zip(names, values_S.tolist(), strict=True)) for values_S in (absent_S, alone_S))
    return Temperature(float(whole.detach()[0]), *tables)


def sets_of(names: Sequence[str]) -> dict[str, list[str]]:
    """The sets of sensors that a model is tried with: all, each alone, all but one."""
    shown = {"all": [*names]}
    if len(names) > 1:
        shown |= {f"{name} alone": [name] for name in names}
        shown |= {f"{missing} missing": [name for name in names if name != missing] for missing in names}
    return shown
