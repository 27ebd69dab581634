"""``rules.toml``: which alarms there are. Expressions are in the Common Expression Language (https://cel.dev)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from streamer.errors import UsageError, extra, one_line

NAME = r"^[A-Za-z0-9_-]{1,60}$"
MOST_WINDOWS = 1000  # that a rule looks back

with extra("rules", "streamer rules"):
    import cel

# Functions of CEL that expressions may call; operators have names that begin with _, and come with it.
FUNCTIONS = frozenset(
    (
        *(
            "all",
            "exists",
            "exists_one",
            "filter",
            "map",
            "has",
            "size",
            "contains",
            "startsWith",
            "endsWith",
            "matches",
        ),
        *("int", "uint", "double", "string", "bytes", "bool", "max", "min", "duration", "timestamp"),
        *("getFullYear", "getMonth", "getDayOfMonth", "getDayOfWeek", "getHours", "getMinutes", "getSeconds"),
    )
)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an alarm is raised.

    Attributes:
        when: An expression that is true, false or, where something is missing, neither.
        of: True in at least the first number of the last so many windows.
        again_after_s: Not again for this long, seconds of event time.
        say: What the alarm says; ``{NAME}`` is what the output of that name says of the window.
        actions: What it sets off.
    """

    when: str
    of: tuple[int, int] = (1, 1)
    again_after_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    severity: Literal["notice", "warning", "alarm"] = "warning"
    say: str = ""
    actions: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: dict[Annotated[str, msgspec.Meta(pattern=NAME)], Rule]


def read(path: Path, actions: Sequence[str]) -> dict[str, Rule]:
    """Name -> rule, in the order of the file.

    Args:
        actions: Those that there are.

    Raises:
        UsageError: The file cannot be read, or a rule cannot be used: which, and why.
    """
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).rules
    except OSError as error:
        raise UsageError(f"cannot read the rules in {path}: {error.strerror}; set STREAMER_RULES") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"rules in {path}: {one_line(error)}") from None
    if not found:
        raise UsageError(f"rules in {path}: there is none")
    for name, rule in found.items():
        if (wrong := _wrong(rule, actions)) is not None:
            raise UsageError(f"rules in {path}: {name}: {wrong}")
    return found


def _wrong(rule: Rule, actions: Sequence[str]) -> str | None:
    least, windows = rule.of
    if not 1 <= least <= windows <= MOST_WINDOWS:
        return f"of = [{least}, {windows}] must be [at least, of so many windows], up to {MOST_WINDOWS}"
    if unknown := sorted(set(rule.actions) - set(actions)):
        return f"there is no action {unknown[0]!r}; known: {', '.join(actions)}"
    try:
        called = cel.compile(rule.when).functions()
    except ValueError as error:
        return f"when: {one_line(error)}"
    if missing := [name for name in called if name.isidentifier() and name[0] != "_" and name not in FUNCTIONS]:
        return f"when: there is no function {missing[0]!r}; known: {', '.join(sorted(FUNCTIONS))}"
    return None
