"""``rules.toml``: what is read, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import cel
import pytest

from streamer.errors import UsageError
from streamer.model.spec import PLACEHOLDER, read_spec
from streamer.rules import table
from streamer.rules.actions import ACTIONS
from streamer.rules.table import Rule

ROOT = Path(__file__).parents[3]
GOOD = """
[rules.hazard]
when = "tags.hazard && action.score > 0.8"
of = [3, 5]
again_after_s = 60
severity = "alarm"
say = "Hazard ahead, {speed}."
actions = ["webhook", "clip"]

[rules.simple]
when = "tags.labels.exists(t, t.startsWith('h')) || has(before.action)"
"""


def read(path: Path, text: str) -> dict[str, Rule]:
    (path / "rules.toml").write_text(text, "utf-8")
    return table.read(path / "rules.toml", list(ACTIONS))


def test_rules_are_read_in_their_order_with_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert list(found) == ["hazard", "simple"]
    assert found["hazard"] == Rule(
        "tags.hazard && action.score > 0.8", (3, 5), 60.0, "alarm", "Hazard ahead, {speed}.", ("webhook", "clip")
    )
    assert found["simple"].of == (1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"there is none; each rule is a table \[rules.NAME\]"),
        ("[rule.a]\nwhen = 'true'", r"there is no 'rule'; each rule is a table \[rules.NAME\]"),
        ("[rules]\nwhen = 'true'", r"'when' is no rule; each rule is a table \[rules.NAME\]"),
        ("[[rules]]\nwhen = 'true'", r"'rules' has no names; each rule is a table \[rules.NAME\]"),
        ("[rules]", "there is none"),
        ("[rules.a", "rules.toml: "),
        ("[rules.a]\nsay = 'x'", "rule a needs the field 'when'"),
        (
            "[rules.a]\nwhen = 'true'\ngiven = 1",
            "rule a has no field 'given'; it has: when, of, again_after_s, severity, say, actions$",
        ),
        ("[rules.'a b']\nwhen = 'true'", "rule 'a b': a name has letters"),
        (
            "[rules.a]\nwhen = 'tags.'",
            "rule a: when: syntax error in line 1, character 6 of the expression: no viable",
        ),
        ("[rules.a]\nwhen = '1 +'", "character 4 of the expression: mismatched input its end$"),
        ("[rules.a]\nwhen = '1 < &&'", "character 5 of the expression: [^{]*$"),
        ("[rules.a]\nwhen = true", "rule a: when = True must be an expression, in quotes"),
        (
            "[rules.a]\nwhen = 'true'\nactions = 'kafka'",
            r'rule a: actions = .kafka. must be a list of names, such as \["kafka"\]',
        ),
        ("[rules.a]\nwhen = 'len(tags) > 1'", "there is no function 'len'; known: .*size"),
        ("[rules.a]\nwhen = 'true'\nof = [3, 2]", r"of = \[3, 2\] must be"),
        ("[rules.a]\nwhen = 'true'\nof = [0, 2]", r"of = \[0, 2\] must be"),
        (
            "[rules.a]\nwhen = 'true'\nagain_after_s = -1",
            "rule a: again_after_s = -1 must be a number of seconds, at least 0",
        ),
        (
            "[rules.a]\nwhen = 'true'\nseverity = 'high'",
            "rule a: severity = 'high' must be one of notice, warning, alarm",
        ),
        ("[rules.a]\nwhen = 'true'\nactions = ['mail']", "no action 'mail'; known: webhook, kafka, clip"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        read(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_rules_of_the_documentation_ask_for_what_the_model_has_that_they_are_for(tmp_path: Path) -> None:
    shown = re.findall(r"`models/(\w+)`.*?```toml\n(.*?)```", (ROOT / "docs/rules.md").read_text("utf-8"), re.S)
    assert [model for model, _ in shown] == ["driving", "vitals"]
    for model, text in [*shown, ("driving", (ROOT / "examples/rules.toml").read_text("utf-8"))]:
        outputs = read_spec(ROOT / "models" / model).outputs
        for name, rule in read(tmp_path, text).items():
            assert set(cel.compile(rule.when).variables()) <= {*outputs, "window"}, name
            assert set(PLACEHOLDER.findall(rule.say)) <= set(outputs), name


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="STREAMER_RULES"):
        table.read(tmp_path / "none.toml", [])
