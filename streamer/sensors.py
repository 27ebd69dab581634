"""How sensors are declared: ``[sensors.NAME]`` in the settings, with a kind and its waiting rules."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from streamer.events import DEFAULT_SENSORS, KIND_NAMES, KINDS, Sensor, Sensors

MAX_SENSORS = 64
MAX_NAME = 40
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # no two underscores: they part the levels of a variable's name
WORDING = f"1 to {MAX_NAME} small letters, digits and single underscores, a letter first"
MAX_OFFSET_MS = 3_600_000


class SensorSettings(BaseModel):
    """One sensor: of what kind it is, how long alignment waits for it, and what is wrong with its clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="what its payloads are: image, audio, text, telemetry, or a kind of yours")
    enabled: bool = Field(True, description="false: there is no such sensor; for the four that are there by default")
    disorder_ms: int = Field(0, ge=0, description="how far its events may arrive out of order, ms")
    max_delay_ms: int = Field(200, ge=0, description="how long a due window waits for it, ms of log time")
    idle_after_ms: int | None = Field(
        3000, ge=0, description="silence after which a window no longer waits, ms; null: silence says nothing"
    )
    expected_hz: float | None = Field(
        None, gt=0, description="expected events a second, for the coverage of frames; null: any one event covers"
    )
    offset_ms: float = Field(
        0.0,
        ge=-MAX_OFFSET_MS,
        le=MAX_OFFSET_MS,
        description="added to the time of its events, ms: what shutter, cable or decoder make it wrong by",
    )


# What a sensor has that gives no rules of its own, by its kind.
RULES = {kind.name: SensorSettings(kind=kind.name, **kind.rules) for kind in KINDS}

# The sensors that there are without a word in the settings: one of each kind that comes with the program.
DEFAULTS = {name: RULES[name] for name in DEFAULT_SENSORS.names}


def over_defaults(given: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The sensors that the user declares, beside those that are there by default and over their values.

    Raises:
        ValueError: With one line: a name, a kind or a table is wrong.
    """
    tables: dict[str, Mapping[str, object]] = {name: {} for name in DEFAULTS}
    tables |= {_name(name): _table(name, own) for name, own in given.items()}
    merged = {name: {**_rules_of_kind(name, own), **own} for name, own in tables.items()}
    count = sum(own["enabled"] is not False for own in merged.values())
    if not 1 <= count <= MAX_SENSORS:
        raise ValueError(f"{count} sensors are enabled, not 1 to {MAX_SENSORS}")
    return merged


def is_name(text: str) -> bool:
    """Whether a sensor may be called so."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


def _name(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"a sensor's name has {WORDING}, which {name[: MAX_NAME + 10]!r} has not")
    return name


def _table(name: str, own: object) -> Mapping[str, object]:
    table = own.model_dump(exclude_unset=True) if isinstance(own, SensorSettings) else own
    if not isinstance(table, dict):
        raise ValueError(f"{name} is {own!r}, not a table such as {{max_delay_ms = 4000}}")
    return table


def _rules_of_kind(name: str, own: Mapping[str, object]) -> dict[str, object]:
    kind = own.get("kind", name)
    if kind not in KIND_NAMES:
        wrong = f"kind {kind!r} is none of" if "kind" in own else "give its kind, one of"
        raise ValueError(f"{name}: {wrong} {', '.join(KIND_NAMES)}")
    if name in KIND_NAMES and kind != name:
        raise ValueError(f"{name} is a sensor of kind {name}, not {kind}: call this one otherwise")
    return RULES[str(kind)].model_dump()


def enabled(settings: Mapping[str, SensorSettings]) -> Sensors:
    """The sensors that there are."""
    return Sensors.of(Sensor(name, KIND_NAMES.index(one.kind)) for name, one in settings.items() if one.enabled)
