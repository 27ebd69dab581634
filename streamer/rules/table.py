"""``rules.toml``: which alarms there are. Expressions are in the Common Expression Language (https://cel.dev)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from streamer.errors import UsageError, extra, one_line

NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
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

SYNTAX_ERROR = re.compile(r"<input>:(\d+):(\d+): Syntax error: (.*)")  # as cel words it; the first of them
EXPECTED = re.compile(r" expecting \{.*")  # a list of all tokens
Severity = Literal["notice", "warning", "alarm"]


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
    severity: Severity = "warning"
    say: str = ""
    actions: tuple[str, ...] = ()


MUST_BE = {
    "when": "an expression, in quotes",
    "of": f"[at least, of so many windows], up to {MOST_WINDOWS}",
    "again_after_s": "a number of seconds, at least 0",
    "severity": f"one of {', '.join(get_args(Severity))}",
    "say": "a text, in quotes",
    "actions": 'a list of names, such as ["kafka"]',
}
A_TABLE = "each rule is a table [rules.NAME]"


def read(path: Path, actions: Sequence[str]) -> dict[str, Rule]:
    """Name -> rule, in the order of the file.

    Args:
        actions: Those that there are.

    Raises:
        UsageError: The file cannot be read, or a rule cannot be used: which, and why.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the rules in {path}: {error.strerror}; set STREAMER_RULES") from None
    except ValueError as error:
        raise UsageError(f"rules in {path}: {one_line(error)}") from None
    try:
        return {name: _rule(name, fields, actions) for name, fields in _tables(found).items()}
    except ValueError as error:
        raise UsageError(f"rules in {path}: {error}") from None


def _tables(found: dict[str, Any]) -> dict[str, Any]:
    """The fields of each rule; a ``ValueError`` says what is wrong, here and below."""
    if others := [name for name in found if name != "rules"]:
        raise ValueError(f"there is no {others[0]!r}; {A_TABLE}")
    rules = found.get("rules", {})
    if not isinstance(rules, dict):
        raise ValueError(f"'rules' has no names; {A_TABLE}")
    if not rules:
        raise ValueError(f"there is none; {A_TABLE}")
    return rules


def _rule(name: str, fields: Any, actions: Sequence[str]) -> Rule:
    if not isinstance(fields, dict):
        raise ValueError(f"{name!r} is no rule; {A_TABLE}")
    if not NAME.fullmatch(name):
        raise ValueError(f"rule {name!r}: a name has letters, digits, _ and -, up to 60 of them")
    for field, value in fields.items():
        if field not in MUST_BE:
            raise ValueError(f"rule {name} has no field {field!r}; it has: {', '.join(MUST_BE)}")
        try:
            msgspec.convert({"when": "", field: value}, Rule)
        except msgspec.ValidationError:
            raise ValueError(f"rule {name}: {field} = {value!r} must be {MUST_BE[field]}") from None
    if "when" not in fields:
        raise ValueError(f"rule {name} needs the field 'when', {MUST_BE['when']}")
    rule = msgspec.convert(fields, Rule)
    if (wrong := _wrong(rule, actions)) is not None:
        raise ValueError(f"rule {name}: {wrong}")
    return rule


def _wrong(rule: Rule, actions: Sequence[str]) -> str | None:
    least, windows = rule.of
    if not 1 <= least <= windows <= MOST_WINDOWS:
        return f"of = [{least}, {windows}] must be {MUST_BE['of']}"
    if unknown := sorted(set(rule.actions) - set(actions)):
        return f"there is no action {unknown[0]!r}; known: {', '.join(actions)}"
    try:
        called = cel.compile(rule.when).functions()
    except ValueError as error:
        return f"when: {_syntax(error)}"
    if missing := [name for name in called if name.isidentifier() and name[0] != "_" and name not in FUNCTIONS]:
        return f"when: there is no function {missing[0]!r}; known: {', '.join(sorted(FUNCTIONS))}"
    return None


def _syntax(error: ValueError) -> str:
    """Where a syntax error is, and what it is, without the list of all that could be there instead."""
    found = SYNTAX_ERROR.search(str(error))
    if found is None:
        return one_line(error)
    line, character, what = found.groups()
    what = EXPECTED.sub("", what).replace("'<EOF>'", "its end").replace("<EOF>", "its end")
    return f"syntax error in line {line}, character {character} of the expression: {what}"
