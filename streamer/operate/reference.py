"""The settings as text: a reference for ``docs/configuration.md``, and the effective values for ``streamer settings``.

Both are made from :class:`streamer.settings.Settings`, so they always agree with the code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from streamer.sensors import DEFAULTS, SensorSettings
from streamer.settings import SECRETS, Settings
from streamer.settings_describe import DescribeSettings
from streamer.settings_gateway import GatewaySettings
from streamer.settings_sinks import SinkSettings

HEAD = """\
# Configuration

<!-- made by `streamer settings --markdown > docs/configuration.md`; a test holds it to the code -->

Every setting can be given in the environment, as `STREAMER_` and its name in capitals, or in a TOML file under its own
name. Where several say something, the first of these wins:

1. options of the command,
2. the environment: `STREAMER_WINDOW_MS=2000`,
3. the TOML file that `STREAMER_CONFIG` names, by default `streamer.toml` in the working directory: `window_ms = 2000`,
4. the addresses that `streamer up` wrote to `.streamer/endpoints.json`,
5. the defaults below; where the working directory has no `models/driving` or `schemas`, those inside the package.

A secret (`kafka_password`, `redis_password`, `dashboard_token`, `describe_key`, `webhook_url`, `webhook_key`) can
lie in a file that a variable with `_FILE` at its end names, as Kubernetes and Docker mount secrets:
`STREAMER_KAFKA_PASSWORD_FILE=/run/secrets/kafka-password`.

`streamer settings` prints what is in effect, in the form of a TOML file, without secrets. In the environment lists and
tables are JSON:
`STREAMER_DATAREF_PREFIXES='["s3://drives/"]'`; an entry of a table can be a variable, with two underscores before its
name: `STREAMER_SENSES__SPEECH=moonshine`. A value that is out of range, or a name that is no setting, in the file
or in the environment, ends the command with one line that says so.
"""

DESCRIBE_HEAD = """\
## Descriptions

Of `streamer describe`: [descriptions](describe.md).
"""

GATEWAY_HEAD = """\
## Gateway

Of `streamer gateway`: [gateway](gateway.md).
"""

SINKS_HEAD = """\
## Sinks

Of `streamer sink`: [sinks](sinks.md), and of `streamer rules`: [rules](rules.md).
"""

# Settings with a section of their own, in its order.
GROUPS: dict[str, type[BaseModel]] = {
    DESCRIBE_HEAD: DescribeSettings,
    GATEWAY_HEAD: GatewaySettings,
    SINKS_HEAD: SinkSettings,
}

SENSORS_HEAD = """\
## Sensors

`STREAMER_SENSORS__TEXT__MAX_DELAY_MS=4000` in the environment (two underscores between the levels), or in TOML

```toml
[sensors.text]
max_delay_ms = 4000

[sensors.camera_rear]
kind = "image"
```

There is a sensor of each kind, called like it; declared ones are added to these four, with the defaults of their kind.
`null` can be given in the environment alone, since TOML has no such value:
`STREAMER_SENSORS__AUDIO__IDLE_AFTER_MS=null`.
"""


SETTING = ("setting", "default", "allowed", "meaning")


def markdown() -> str:
    """The reference of all settings as Markdown."""
    fields = Settings.model_json_schema()["properties"]
    grouped = {name: head for head, group in GROUPS.items() for name in group.model_fields}
    rows: dict[str, list[tuple[str, ...]]] = {HEAD: [], **{head: [] for head in GROUPS}}
    for name, schema in fields.items():
        if name != "sensors":
            row = (
                f"`{name}`",
                _code(Settings.model_fields[name].default),
                _allowed(schema),
                _prose(schema["description"]),
            )
            rows[grouped.get(name, HEAD)].append(row)
    rules = SensorSettings.model_json_schema()["properties"]
    defaults = {name: rule.model_dump() for name, rule in DEFAULTS.items()}
    rule_rows = [
        (
            f"`{name}`",
            *(_code(default[name]) for default in defaults.values()),
            _allowed(schema),
            _prose(schema["description"]),
        )
        for name, schema in rules.items()
    ]
    return "\n".join(
        [
            *(part for head, own in rows.items() for part in (head, _table(SETTING, own))),
            SENSORS_HEAD,
            _table(("setting", *DEFAULTS, "allowed", "meaning"), rule_rows).rstrip("\n"),
            "",
        ]
    )


def toml(settings: Settings) -> str:
    """The values in effect as TOML; passwords are masked, and what is not set is a comment."""
    values = settings.model_dump(mode="json")
    # last, as in the reference
    values |= {name: values.pop(name) for group in GROUPS.values() for name in group.model_fields}
    tables = {"senses": values.pop("senses")}
    tables |= {f"sensors.{name}": rules for name, rules in values.pop("sensors").items()}
    values["redis"] = settings.redis_shown
    values |= {name: "***" for name in SECRETS if values[name] is not None}
    parts = [_assignments(values)]
    parts += [f"\n[{name}]\n{_assignments(rules)}" for name, rules in tables.items()]
    return "".join(parts)


def _assignments(values: dict[str, Any]) -> str:
    # JSON's strings, numbers and lists of them are TOML too
    return "".join(
        f"# {name} = null\n" if value is None else f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in values.items()
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _code(value: Any) -> str:
    return f"`{json.dumps(value, default=_plain, ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value)


def _prose(text: str) -> str:
    """Text with placeholders such as [,host:port], escaped for Markdown."""
    return text.replace("[", "&#91;").replace("]", "&#93;")


def _allowed(schema: dict[str, Any]) -> str:
    """What values a field may have, from its JSON Schema."""
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    part = choices[0]
    if part.get("type") == "boolean":
        return "`true`, `false`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part["type"] in ("integer", "number"):
        return f"{_range(part)}{' or null' if 'anyOf' in schema else ''}"
    if part["type"] == "boolean":
        return "true, false"
    if part["type"] == "array":
        return "list of text"
    if part["type"] == "object":
        return "table of text"
    return f"`{part['pattern']}`" if "pattern" in part else "text"


def _range(part: dict[str, Any]) -> str:
    kind = "whole number" if part["type"] == "integer" else "number"
    if "exclusiveMinimum" in part:
        return f"{kind} > {part['exclusiveMinimum']:,}"
    if "maximum" in part:
        return f"{part['minimum']:,} to {part['maximum']:,}"
    return f"{kind} ≥ {part['minimum']:,}" if "minimum" in part else kind
