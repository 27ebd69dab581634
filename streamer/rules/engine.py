"""Results of a session in their order -> alarms. Pure: what is remembered between two results is a value.

Expressions are three-valued, as CEL has it: where an output, a label or a number is missing, the answer is unknown,
unless what is there decides (``false && missing`` is false). On a window on which the model failed every rule is
unknown. Of the last m windows n must be true: with fewer that are true, but enough together with the unknown ones,
nothing is decided and nothing changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cel
import msgspec

from streamer.errors import one_line
from streamer.model.spec import PLACEHOLDER
from streamer.result import Result, in_words
from streamer.rules.alarm import Alarm
from streamer.rules.table import Rule

TRUE, FALSE, UNKNOWN = "t", "f", "u"
BEFORE, WINDOW = "before", "window"
NONE_BEFORE = "a session's first window has no 'before'"
UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")  # as cel words it


class Memory(msgspec.Struct):
    """What is remembered of a session between two results; kept beside the cursor as JSON.

    Attributes:
        seen: Rule -> answers for the last windows, a letter each; no rule whose answers were all false.
        raised: Rules that are true; 0: nothing else is known of them.
        newest_us: Rule -> end of the window of its newest alarm; only for rules with ``again_after_s``.
        ended_us: End of the newest window if it closed because the session ended.
        before: The variables of the window before, if a rule asks for them.
    """

    seen: dict[str, str] = {}
    raised: dict[str, int] = {}
    newest_us: dict[str, int] = {}
    ended_us: int | None = None
    before: dict[str, Any] | None = None


class Engine:
    """Applies rules.

    Args:
        rules: Of :func:`streamer.rules.table.read`.

    Attributes:
        windows: How many there were, but for those on which the model failed.
        unknown: Rule -> number of these windows in which it was neither true nor false, and the last reason.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        programs = {name: cel.compile(rule.when) for name, rule in rules.items()}
        self._rules = [(name, rule, *rule.of, programs[name].execute) for name, rule in rules.items()]
        # What no rule asks for costs as much to hand over as many rules to apply.
        self._asked = sorted({name for program in programs.values() for name in program.variables()})
        self.windows = 0
        self.unknown: dict[str, tuple[int, str]] = {}

    def see(self, result: Result, memory: Memory) -> list[Alarm]:
        """Take a session's next result; gives the alarms that it raises, and updates the memory."""
        # Several windows close when a session ends. What comes after them is another session of the name.
        if memory.ended_us is not None and (result.closed_by != "end" or result.start_us > memory.ended_us):
            memory.seen, memory.raised, memory.newest_us, memory.before = {}, {}, {}, None
        memory.ended_us = result.end_us if result.closed_by == "end" else None
        found = variables(result)
        known = found if memory.before is None else found | {BEFORE: memory.before}
        context = cel.Context(variables={name: known[name] for name in self._asked if name in known})
        failed = result.status == "failed"
        self.windows += not failed
        seen, raised, alarms = memory.seen, memory.raised, []
        for name, rule, least, windows, execute in self._rules:
            answer: Any = None
            try:
                answer = None if failed else execute(context)
            except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
                self._note(name, _why(rule, error, known))
            if answer is False and name not in seen and name not in raised:
                continue  # as nearly always
            if answer is not None and answer is not True and answer is not False:
                self._note(name, f"the expression gives {answer!r}, not true or false")
                answer = None
            decided = answer if windows == 1 else _decided(name, least, windows, answer, seen)
            if decided is False:
                raised.pop(name, None)
            elif decided and name not in raised:
                raised[name] = 0
                if self._due(name, rule, result, memory):
                    alarms.append(_alarm(name, rule, result))
        memory.before = found if BEFORE in self._asked else None
        return alarms

    def _due(self, name: str, rule: Rule, result: Result, memory: Memory) -> bool:
        if not rule.again_after_s:
            return True
        newest_us = memory.newest_us.get(name)
        if newest_us is not None and result.end_us - newest_us <= rule.again_after_s * 1e6:
            return False
        memory.newest_us[name] = result.end_us
        return True

    def _note(self, name: str, why: str) -> None:
        count, _ = self.unknown.get(name, (0, ""))
        self.unknown[name] = count + 1, why


def _why(rule: Rule, error: Exception, known: Mapping[str, Any]) -> str:
    """Why a rule is unknown: what is missing, and what there is instead."""
    if (undefined := UNDEFINED.search(str(error))) is not None:
        if undefined[1] == BEFORE:
            return NONE_BEFORE
        return f"the results have no {undefined[1]!r}; they have: {', '.join(known)}"
    if isinstance(error, KeyError):
        missing = str(error.args[0])
        asked = re.search(rf"(?<![\w.])(\w+)\.{re.escape(missing)}\b", rule.when)
        if asked is None or asked[1] not in known:
            return f"there is no {missing!r}"
        return f"{asked[1]!r} has no {missing!r}; it has: {', '.join(known[asked[1]])}"
    return one_line(error).partition(". ")[0]  # what follows is advice at length


def _decided(name: str, least: int, windows: int, answer: bool | None, seen: dict[str, str]) -> bool | None:
    """Whether enough of the last windows are true; ``None`` if that depends on unknown ones."""
    letters = (seen.get(name, "") + (UNKNOWN if answer is None else TRUE if answer else FALSE))[-windows:]
    true, unknown = letters.count(TRUE), letters.count(UNKNOWN)
    if true or unknown:
        seen[name] = letters
    else:
        seen.pop(name, None)
    return True if true >= least else None if true + unknown >= least else False


def variables(result: Result) -> dict[str, Any]:
    """What expressions see: each output by its name, with a yes or no for each of its labels, and the window."""
    outputs = {name: _answers(output) for name, output in result.outputs.items()}
    window = {
        "session": result.session,
        "start_s": result.start_us / 1e6,
        "end_s": result.end_us / 1e6,
        "closed_by": result.closed_by,
        "present": list(result.present),
        "coverage": result.coverage,
        "novelty": result.novelty,
        "status": result.status,
        "model": result.model,
        "version": result.version,
    }
    return outputs | {WINDOW: window}


def _answers(output: Mapping[str, Any]) -> dict[str, Any]:
    decided = output["labels"] if "labels" in output else [output.get("label")]
    return {label: label in decided for label in output.get("scores", ())} | dict(output)


def _alarm(name: str, rule: Rule, result: Result) -> Alarm:
    text = re.sub(PLACEHOLDER, lambda found: in_words(result.outputs.get(found[1], {})), rule.say) or name
    return Alarm(name, rule.severity, result.session, result.start_us, result.end_us, text)
