"""What the signals of a ward are by their labels: ECG, pulse wave, breathing, oxygen saturation.

Labels differ from recorder to recorder (``MLII``, ``ECG LA-RA``, ``EKG1``); the patterns are of those that PhysioNet's
data sets, monitors and EDF+'s standard texts (www.edfplus.info/specs/edftexts.html) use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from streamer.feeds.replay.part import Measured

VOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # -> mV; micro sign and Greek mu
RATES = ("bpm", "/min", "1/min", "rpm", "hz")  # of a pulse or breathing rate, which is no wave
LEADS = r"(?:m?l?|mc)(?:i{1,3})|av[rlf]|v[1-9]?r?|mcl[1-6]?|cm[1-6]|cc[1-6]|ml5|d[1-3]"


class Kind(NamedTuple):
    """A usual name, and the labels of what it stands for.

    Attributes:
        best: Of those labels, the ones to take if there are several.
    """

    name: str
    labels: re.Pattern[str]
    best: re.Pattern[str]


def _kind(name: str, labels: str, best: str) -> Kind:
    return Kind(name, re.compile(labels, re.IGNORECASE), re.compile(best, re.IGNORECASE))


KINDS = (
    _kind("ecg", rf"(?:ecg|ekg).*|{LEADS}", r"ecg|(?:(?:ecg|ekg)\W*(?:lead\W*)?)?(?:m?l?ii|d2)"),
    _kind("pleth", r"pleth.*|ppg.*", "pleth"),
    _kind("resp", r"resp(?:iration)?(?!\w).*|thor.*|chest.*|abdo.*", r"resp(?:iration)?|.*(?:thor|chest).*"),
    _kind("spo2", r"s[pa]o2.*|o2 ?sat.*|osat.*", "spo2"),
)


def measured(units: Mapping[str, str]) -> dict[str, Measured]:
    """What the signals of a recording measure, those to be preferred first.

    Args:
        units: Label of a signal -> its unit; in WFDB mV is also what a unit is that the header does not give.
    """
    found = [(kind, label) for kind in KINDS for label in units if kind.labels.fullmatch(label.strip())]
    found.sort(key=lambda pair: pair[0].best.fullmatch(pair[1].strip()) is None)
    known = ((label, _as(kind.name, units[label].strip())) for kind, label in found)
    return {label: what for label, what in known if what is not None}


def _as(name: str, unit: str) -> Measured | None:
    """A kind of signal in its usual unit; ``None`` if something in this unit cannot be one."""
    match name:
        case "ecg" if (scale := VOLTS.get(unit.casefold())) is not None:
            return Measured(name, "mV", scale)
        case "ecg":
            return Measured(name) if unit in ("", "NU") else None
        case "spo2":
            return Measured(name, "%") if unit in ("", "%") else None
        case _:
            return Measured(name) if unit.casefold() not in RATES else None
