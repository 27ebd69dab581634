"""How urgent a session is for people on duty, by its newest result. Pure.

A model says how severe its labels are (``[severity]`` of its ``model.toml``), and each output of a result carries the
severity of what it says. The most severe output stands for the result; where two are as severe, the model's first.

An output that the model is unsure of, or one of a window that still waits for a sensor, comes after sure ones of the
same severity and before less severe ones. So does the order go, the most urgent first::

    alarm, alarm?, warning, warning?, failed, notice, notice?, empty, normal

A window on which the model failed may hide anything: it comes before what is merely worth a notice. What a model does
not grade is normal, sure or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streamer.result import Result, in_words

NORMAL = "normal"
ORDER = (NORMAL, "empty", "notice?", "notice", "failed", "warning?", "warning", "alarm?", "alarm")  # ascending
AT_LEAST = {name: ORDER.index(f"{name}?") for name in ("notice", "warning", "alarm")}  # least rank, unsure ones too
STATUSES = ("failed", "empty")  # of results without outputs


class Standing(msgspec.Struct, frozen=True):
    """Where a result stands.

    Attributes:
        severity: ``normal``, ``notice``, ``warning``, ``alarm``, or the status of a window without a decision.
        sure: Whether the model is sure and the window has closed.
        rank: Place in ``ORDER``: the larger, the more urgent.
        output: Name of the output that stands for the result; empty if there are none.
    """

    severity: str
    sure: bool
    rank: int
    output: str = ""


def standing(result: Result) -> Standing:
    """Where a result stands among those of all sessions."""
    if not result.outputs:
        severity = result.status if result.status in STATUSES else NORMAL
        return Standing(severity, result.final, ORDER.index(severity))
    return max((_of(name, said, result.final) for name, said in result.outputs.items()), key=lambda one: one.rank)


def _of(name: str, said: Mapping[str, Any], final: bool) -> Standing:
    severity, sure = said.get("severity", NORMAL), final and not said.get("unsure")
    if severity not in ORDER:
        severity = NORMAL  # of a worker that is newer than this page, or of nobody: anyone may write to a channel
    return Standing(severity, sure, ORDER.index(severity if sure or severity == NORMAL else f"{severity}?"), name)


def decisions(result: Result) -> dict[str, str]:
    """Output -> what it says, as far as it decides something; a question mark follows what the model is unsure of."""
    shown = {name: said for name, said in result.outputs.items() if "text" not in said}
    return {name: in_words(said) + ("?" if said.get("unsure") else "") for name, said in shown.items()}
