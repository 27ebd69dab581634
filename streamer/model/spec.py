"""``model.toml``: a model's inputs, outputs and architecture. Imports no PyTorch.

Role align, sizing and the checks of ``doctor`` read it, none of which runs the model.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import msgspec

from streamer.errors import ModelError
from streamer.events import DEFAULT_SENSORS, KIND_NAMES, KINDS, Sensors
from streamer.kinds.audio import AudioInput as AudioInput
from streamer.kinds.image import ImageInput as ImageInput
from streamer.kinds.kind import KindOfInput as KindOfInput
from streamer.kinds.telemetry import TelemetryInput as TelemetryInput
from streamer.kinds.text import TextInput as TextInput
from streamer.model.nets.architecture import Architecture, BuildError
from streamer.model.senses import OBJECTS, PEOPLE, PERSON, SOUNDS, WORDS, Senses
from streamer.sensors import WORDING, SensorSettings, is_name, over_defaults
from streamer.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPEC_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CODE_FILE = "model.toml", "weights.safetensors", "tokenizer.json", "model.py"
PLACEHOLDER = re.compile(r"\{(\w+)\}")  # in a sentence: an output's name

NORMAL = "normal"
SEVERITIES = (NORMAL, "notice", "warning", "alarm")  # of what an output says, ascending

SCORE_DIGITS = 4  # scores are sent as JSON, and a float32 softmax has no more
VALUE_DIGITS = 6  # significant digits of a number: those of a float32

# What the senses' networks take.
SENSED_PIXELS, SENSED_RATE_HZ, SENSED_TELEMETRY_HZ, SENSED_TOKENS = 300, 16_000, 10.0, 256


def decided(labels: Sequence[str], scores_L: NDArray[np.float32]) -> dict[str, Any]:
    """An output of classes as it is published: the most probable label, its score, and all scores."""
    scores = {label: round(float(score), SCORE_DIGITS) for label, score in zip(labels, scores_L, strict=True)}
    best = labels[int(scores_L.argmax())]
    return {"label": best, "score": scores[best], "scores": scores}


if TYPE_CHECKING:
    Input = KindOfInput
else:
    Input = Union[tuple(kind.input for kind in KINDS)]  # noqa: UP007  # told apart by their tags


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[inputs]`` of a ``model.toml``: what a model needs of each sensor; ``None`` if it does not read one.

    Attributes:
        more: Sensors that are not called like their kind, and those of kinds that have no field here.
    """

    image: ImageInput | None = None
    audio: AudioInput | None = None
    text: TextInput | None = None
    telemetry: TelemetryInput | None = None
    more: dict[str, Input] = {}

    @property
    def all(self) -> dict[str, Input]:
        """Sensor -> what is needed of it: those called like their kind first, then as the file lists them."""
        own = {name: getattr(self, name) for name in DEFAULT_SENSORS.names}
        return {name: wanted for name, wanted in own.items() if wanted is not None} | self.more

    def of_kind(self, kind: str) -> dict[str, Input]:
        """The inputs of one kind."""
        return {name: wanted for name, wanted in self.all.items() if wanted.kind == kind}


Severe = Literal["notice", "warning", "alarm"]  # ascending


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head.

    Attributes:
        labels: Of classes and tags.
        kind: ``classes``: one of the labels is right; ``tags``: any number of them is; ``number``: a quantity;
            ``text``: words, of models of ready senses alone.
        unit: Unit of a number, to be shown: ``m/s``.
    """

    labels: tuple[str, ...] = ()
    kind: Literal["classes", "tags", "number", "text"] = "classes"
    unit: str = ""

    @property
    def size(self) -> int:
        """Columns of its logits."""
        return len(self.labels) or 1


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `streamer speak` says when a label of an output is decided.

    Attributes:
        say: The sentence; ``{NAME}`` stands for what the output of that name says of the window.
        severity: One that is more severe cuts off one that is being said; ``None``: that of the label in
            ``[severity]``, else ``notice``.
        again_after_s: Say it again only after so many seconds without the label.
    """

    say: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    severity: Severe | None = None
    again_after_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``model.toml``.

    Attributes:
        window_ms: Length of the windows that the model was trained on.
        outputs: Name of an output -> its head.
        senses: Of a model of ready senses, whose inputs and outputs follow from them; ``None``: it has a network.
        speak: Name of an output -> its labels that are said aloud -> how.
        severity: Name of an output that has labels -> those that matter to people on duty -> how much; the output's
            other labels are ``normal``.
        unsure_below: Name of an output of kind classes -> the score that its best label needs; below it the output is
            ``unsure``.
    """

    name: str
    version: str
    window_ms: int
    inputs: InputSpec = InputSpec()
    outputs: dict[str, Output] = {}
    architecture: Architecture = Architecture()
    description: str = ""
    senses: Senses | None = None
    speak: dict[str, dict[str, Sentence]] = {}
    severity: dict[str, dict[str, Severe]] = {}
    unsure_below: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]] = {}

    def severity_of(self, name: str, output: Mapping[str, Any]) -> str | None:
        """How much it matters what an output says: the most severe of its labels; ``None`` if the model does not say.

        Args:
            output: As it is published.
        """
        levels = self.severity.get(name)
        if levels is None:
            return None
        said = output["labels"] if "labels" in output else [output["label"]]
        return max((levels.get(label, NORMAL) for label in said), key=SEVERITIES.index, default=NORMAL)


def read_network_spec(folder: Path) -> ModelSpec:
    """Read the ``model.toml`` of a model that has a network, which can be trained, exported and measured.

    Raises:
        ModelError: See :func:`read_spec`; or the model is made of ready senses.
    """
    spec = read_spec(folder)
    if spec.senses is not None:
        raise ModelError(
            f"{folder} is made of ready senses ([senses] in {SPEC_FILE}): there are no weights to train, export or "
            "compare; docs/senses.md has what they can do"
        )
    return spec


def read_spec(folder: Path) -> ModelSpec:
    """Read and validate ``model.toml``.

    Raises:
        ModelError: The folder or the file is missing, or the file is wrong; one line says how.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        raise ModelError(f"{path} is not a file; a model folder holds {SPEC_FILE} and {WEIGHTS_FILE}")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        raw["inputs"] = _by_name(raw.get("inputs", {}))
        spec = msgspec.convert(raw, ModelSpec)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ModelError(f"{path}: {error}") from None
    problem = None
    if spec.senses is not None:
        problem, spec = _problem_of_senses(spec), _with_senses(spec, spec.senses)
    problem = problem or _problem(spec)
    if problem:
        raise ModelError(f"{path}: {problem}")
    return spec


def _by_name(inputs: object) -> object:
    """``[inputs]`` with the sensors that are not called like their kind in a table of their own."""
    if not isinstance(inputs, dict) or not all(isinstance(table, dict) for table in inputs.values()):
        return inputs  # wrong, which the conversion says
    own = DEFAULT_SENSORS.names
    more = {name: table for name, table in inputs.items() if name not in own}
    for name, table in more.items():
        if not is_name(name):
            raise msgspec.ValidationError(f"inputs.{name}: a sensor's name has {WORDING}")
        if table.get("kind", name) not in KIND_NAMES:
            raise msgspec.ValidationError(f"inputs.{name} needs its kind: one of {', '.join(KIND_NAMES)}")
    more = {name: {"kind": name, **table} for name, table in more.items()}
    return {**{name: table for name, table in inputs.items() if name in own}, "more": more}


def check_sensors(spec: ModelSpec, sensors: Sensors) -> None:
    """Check that every sensor that a model reads is declared.

    Raises:
        ModelError: One is not, or is of another kind; one line says how to declare it.
    """
    for name, wanted in spec.inputs.all.items():
        number = sensors.numbers.get(name)
        if number is None and spec.senses is not None:
            row = KIND_NAMES.index(wanted.kind)
            yours = ", ".join(f'"{sensors.names[own]}"' for own in sensors.of_kind(row))
            raise ModelError(
                f"model {spec.name} takes {wanted.kind} of the sensor {name}, which is not declared: name yours in its "
                f"model.toml, [senses.sensors] {wanted.kind} = [{yours}]"
                + ("" if yours else f", and take out the tables that need {wanted.kind}")
            )
        if number is None:
            raise ModelError(
                f"model {spec.name} reads the sensor {name}, which is not declared: add [sensors.{name}] with "
                f'kind = "{wanted.kind}" to the settings (docs/sensors.md); there are {", ".join(sensors.names)}'
            )
        if KIND_NAMES[sensors.rows[number]] != wanted.kind:
            kind = KIND_NAMES[sensors.rows[number]]
            raise ModelError(f"model {spec.name} reads {name} as {wanted.kind}, and the settings declare it as {kind}")


def with_sensors(spec: ModelSpec, settings: Settings) -> Settings:
    """The settings with the sensors that a model reads, for windows that are made for it: training, measuring."""
    missing = {name: {"kind": wanted.kind} for name, wanted in spec.inputs.more.items() if name not in settings.sensors}
    if not missing:
        return settings
    declared = {name: SensorSettings(**rules) for name, rules in over_defaults({**settings.sensors, **missing}).items()}
    return settings.model_copy(update={"sensors": declared})


def _problem_of_senses(spec: ModelSpec) -> str | None:
    if spec.inputs != InputSpec() or spec.outputs or spec.architecture != Architecture():
        return "inputs, outputs and architecture follow from [senses]: leave them out"
    return spec.senses.problem() if spec.senses is not None else None


def _with_senses(spec: ModelSpec, senses: Senses) -> ModelSpec:
    """The spec with the inputs that its senses take, and their outputs in the order of a result."""
    objects, sounds = senses.objects, senses.sounds
    frames = objects.frames if objects is not None else int(senses.judged_by("pictures"))
    channels = tuple(dict.fromkeys(measured.channel for measured in senses.numbers.values()))
    taken: dict[str, KindOfInput] = dict.fromkeys(senses.sensors.text, TextInput(SENSED_TOKENS))
    if frames:
        taken |= dict.fromkeys(senses.sensors.image, ImageInput(frames, SENSED_PIXELS, SENSED_PIXELS))
    if sounds is not None or senses.judged_by("sounds"):
        taken |= dict.fromkeys(senses.sensors.audio, AudioInput(SENSED_RATE_HZ))
    if channels:
        taken |= dict.fromkeys(senses.sensors.telemetry, TelemetryInput(channels, SENSED_TELEMETRY_HZ))
    own: dict[str, Any] = {name: wanted for name, wanted in taken.items() if name in DEFAULT_SENSORS.numbers}
    inputs = InputSpec(**own, more={name: wanted for name, wanted in taken.items() if name not in own})
    outputs = {WORDS: Output(kind="text")}
    if objects is not None:
        outputs[OBJECTS] = Output(objects.labels, "tags")
        if PERSON in objects.labels:
            outputs[PEOPLE] = Output(kind="number")
    if sounds is not None:
        outputs[SOUNDS] = Output(tuple(sounds.tags), "tags")
    outputs |= {name: Output(kind="number", unit=measured.unit) for name, measured in senses.numbers.items()}
    outputs |= {name: Output(learned.labels) for name, learned in senses.learned.items()}
    return msgspec.structs.replace(spec, inputs=inputs, outputs=outputs)


def _problem(spec: ModelSpec) -> str | None:
    inputs = spec.inputs.all
    numbers: dict[str, float] = {"window_ms": spec.window_ms}
    for name, wanted in inputs.items():
        facts = msgspec.structs.asdict(wanted)
        numbers |= {f"inputs.{name}.{fact}": value for fact, value in facts.items() if isinstance(value, int | float)}
    wrong = [f"{name} = {value}" for name, value in numbers.items() if value <= 0]
    if wrong:
        return f"{wrong[0]} must be above 0"
    if not inputs:
        return "[inputs] names no sensor"
    for name, wanted in inputs.items():
        if (wrong_field := wanted.problem()) is not None:
            return f"inputs.{name}.{wrong_field}"
        if wanted.share:
            other = inputs.get(wanted.share)
            if other is None or other.share or msgspec.structs.replace(wanted, share="") != other:
                return f"inputs.{name}.share names {wanted.share}, which is no other input of the same kind and shape"
    for name, output in spec.outputs.items():
        if output.kind == "text":
            if spec.senses is None:
                return f"outputs.{name} is of kind text, which networks have not"
            continue
        if output.kind == "number":
            if output.labels:
                return f"outputs.{name} is a number and has no labels"
            continue
        if output.unit:
            return f"outputs.{name}.unit is for outputs of kind number"
        least = 2 if output.kind == "classes" else 1
        if len(output.labels) < least or len(set(output.labels)) < len(output.labels):
            return f"outputs.{name}.labels needs {least} or more different labels"
    if not spec.outputs:
        return "[outputs] names no head"
    for name in spec.unsure_below:
        if name not in spec.outputs or spec.outputs[name].kind != "classes":
            return f"unsure_below.{name} is not one of the outputs of kind classes"
    if (problem := _unspeakable(spec) or _ungradable(spec)) is not None:
        return problem
    try:
        spec.architecture.check()
    except BuildError as error:
        return str(error)
    return None


def _unspeakable(spec: ModelSpec) -> str | None:
    for name, sentences in spec.speak.items():
        known = spec.outputs[name].labels if name in spec.outputs else ()
        if not known:
            return f"speak.{name} is not one of the outputs that have labels"
        for label, sentence in sentences.items():
            if label not in known:
                return f"speak.{name}.{label} is not a label of outputs.{name}"
            for other in PLACEHOLDER.findall(sentence.say):
                if other not in spec.outputs:
                    return f"speak.{name}.{label} names {{{other}}}, which is not one of the outputs"
    return None


def _ungradable(spec: ModelSpec) -> str | None:
    for name, levels in spec.severity.items():
        known = spec.outputs[name].labels if name in spec.outputs else ()
        if not known:
            return f"severity.{name} is not one of the outputs that have labels"
        for label in levels:
            if label not in known:
                return f"severity.{name}.{label} is not a label of outputs.{name}, which are {', '.join(known)}"
    return None
