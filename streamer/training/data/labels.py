"""A row's labels -> labels of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from streamer.errors import UsageError
from streamer.model.spec import ModelSpec, Output
from streamer.training.data.rows import RowError
from streamer.training.dataset import Label

Given = str | float | Sequence[str]


def checked(spec: ModelSpec, given: Mapping[str, Given]) -> dict[str, Label]:
    """Check labels by output, and convert them to those of an example.

    Raises:
        RowError: The model lacks an output or a label, or a label is of another kind than its output.
    """
    return {name: _label(name, _output(spec, name), value) for name, value in given.items()}


def sole(spec: ModelSpec, given: Given) -> dict[str, Label]:
    """A label without an output's name, for the model's only output.

    Raises:
        RowError: The model has several outputs.
    """
    if len(spec.outputs) > 1:
        raise RowError(f"the model has the outputs {', '.join(spec.outputs)}: give labels by output, not one label")
    return checked(spec, dict.fromkeys(spec.outputs, given))


def class_output(spec: ModelSpec, path: object) -> str:
    """The output whose labels are the classes of a data set.

    Raises:
        UsageError: The model has none or several of kind classes.
    """
    names = [name for name, output in spec.outputs.items() if output.kind == "classes"]
    if len(names) != 1:
        raise UsageError(
            f"{path} has one class an example, and {spec.name} has {len(names)} outputs of kind classes "
            f"({', '.join(names) or 'none'}): describe the data in a manifest"
        )
    return names[0]


def class_names(output: Output, count: int, names: Sequence[str] = ()) -> list[str | None]:
    """The model's label for each of a data set's class numbers; ``None`` where the model has none.

    If the model has labels equal to the classes' names, or else to their numbers, these are used; otherwise class i is
    the model's label i.
    """
    for candidates in (list(names), [str(number) for number in range(count)]):
        if set(candidates) & set(output.labels):
            return [name if name in output.labels else None for name in candidates]
    return [output.labels[number] if number < len(output.labels) else None for number in range(count)]


def _output(spec: ModelSpec, name: str) -> Output:
    if name not in spec.outputs:
        raise RowError(f"{name!r} is no output of the model; it has {', '.join(spec.outputs)}")
    return spec.outputs[name]


def _label(name: str, output: Output, given: Given) -> Label:
    if output.kind == "number":
        if isinstance(given, str | Sequence) or not math.isfinite(given):
            raise RowError(f"{name} is a number, not {_shown(given)}")
        return float(given)
    if output.kind == "tags":
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise RowError(f"{name} is a list of tags, not {_shown(given)}")
        for tag in given:
            _known(name, output, tag)
        return tuple(label for label in output.labels if label in given)
    if not isinstance(given, str):
        raise RowError(f"{name} is one label in quotes, not {_shown(given)}")
    return _known(name, output, given)


def _known(name: str, output: Output, label: str) -> str:
    if label not in output.labels:
        listed = ", ".join(output.labels[:12]) + (", …" if len(output.labels) > 12 else "")
        raise RowError(f"{label!r} is no label of {name}; known: {listed}")
    return label


def _shown(given: Given) -> str:
    return repr(given if isinstance(given, str | float | int) else list(given))[:60]
