"""A result: what is published of one window, at last or for now. Pure; ``store.results`` has its form in Redis."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True):
    """What is published of one window.

    Attributes:
        start_us, end_us: The window ``[start, end)``, microseconds since the epoch.
        present: Names of the sensors that have data in the window.
        coverage: Sensor -> share of the window that its data cover, 0 to 1.
        members: Topic -> offset ranges ``[first, last]`` of the records in the window.
        outputs: Head of the model -> its output; empty if ``status`` is ``failed`` or ``empty``.
        embedding: float16, little-endian: the window in the common space.
        status: ``ok``; ``partial``: data may be missing because Redis lost its state; ``failed``: the model or the
            decoding raised an error, or killed the process each time: the window counts as done, without outputs;
            ``empty``: nothing of what the model takes is in the window, so it was not run.
        latencies_us: Stage -> microseconds.
        novelty: Sensor -> how far what it shows is from all that the model met in training; above 1 it is strange to
            the model. Of sensors that the model can tell it of.
        final: Whether the window has closed. Else another result of it follows: this one is of the records that were
            there some time after the window was due.
    """

    session: str
    start_us: int
    end_us: int
    closed_by: str
    present: tuple[str, ...]
    coverage: dict[str, float]
    members: dict[str, tuple[tuple[int, int], ...]]
    outputs: dict[str, Any]
    embedding: bytes
    model: str
    version: str
    status: str
    latencies_us: dict[str, int]
    novelty: dict[str, float] = {}
    final: bool = True

    @property
    def id(self) -> str:
        """Unique name of the window: ``session/end_us``."""
        return f"{self.session}/{self.end_us}"

    def to_fields(self) -> dict[str, bytes]:
        """The fields of the Redis stream entry: text, JSON where nested, the embedding as raw bytes."""
        fields = {"id": self.id.encode()}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bytes):
                fields[name] = value
            elif isinstance(value, bool):
                fields[name] = msgspec.json.encode(value)
            elif isinstance(value, (str, int)):
                fields[name] = str(value).encode()
            elif name == "present":
                fields[name] = ",".join(value).encode()
            else:
                fields[name] = msgspec.json.encode(value)
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Result:
        """Read back what :meth:`to_fields` wrote.

        Raises:
            ValueError: The fields are not those of a result.
        """
        try:
            present = fields[b"present"].decode()
            return msgspec.convert(
                {
                    **{name: fields[key].decode() for name, key in _TEXT},
                    **{name: int(fields[key]) for name, key in _NUMBERS},
                    **{name: msgspec.json.decode(fields[key]) for name, key in _JSON},
                    "novelty": msgspec.json.decode(fields.get(b"novelty", b"{}")),  # absent from older results
                    "present": present.split(",") if present else [],
                    "embedding": fields[b"embedding"],
                    "final": fields.get(b"final", b"true") == b"true",  # results of before had no such field
                },
                cls,
            )
        except (KeyError, ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"not a result: {error!r}") from None

    @classmethod
    def from_json(cls, line: bytes) -> Result:
        """Read back what :meth:`to_json` wrote without the embedding.

        Raises:
            ValueError: It is not a result.
        """
        try:
            return msgspec.convert({**msgspec.json.decode(line), "embedding": b""}, cls)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a result: {error!r}") from None

    def to_json(self, embedding: bool = False) -> bytes:
        """One line of JSON as ``schemas/result.json`` describes it, with or without the embedding in base64."""
        plain = {"id": self.id, **{name: getattr(self, name) for name in self.__struct_fields__ if name != "embedding"}}
        if embedding:
            plain["embedding"] = base64.b64encode(self.embedding).decode()
        return msgspec.json.encode(plain)


# Fields by their form, with their names in Redis.
_TEXT = [(name, name.encode()) for name in ("session", "closed_by", "model", "version", "status")]
_NUMBERS = [(name, name.encode()) for name in ("start_us", "end_us")]
_JSON = [(name, name.encode()) for name in ("coverage", "members", "outputs", "latencies_us")]


def ranges(offsets: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Offsets as inclusive ranges: ``[3, 4, 5, 9]`` -> ``((3, 5), (9, 9))``."""
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and offset == found[-1][1] + 1:
            found[-1] = (found[-1][0], offset)
        else:
            found.append((offset, offset))
    return tuple(found)


def decision(result: Result) -> tuple[str, float | None]:
    """The model's first output as text, and the score if it is a label; the status where there are no outputs.

    A question mark follows what the model is unsure of.
    """
    output = first(result)
    if not output:
        return result.status, None
    return in_words(output) + ("?" if output.get("unsure") else ""), output.get("score")


def first(result: Result) -> Mapping[str, Any]:
    """The model's first output; empty where there is none."""
    return next(iter(result.outputs.values()), {})


def strange(result: Result) -> tuple[str, ...]:
    """The sensors that show what the model has not met."""
    return tuple(name for name, far in result.novelty.items() if far > 1)


def in_words(output: Mapping[str, Any]) -> str:
    """An output as text: tags are joined by commas, a dash stands for no tag; a number has its unit; words stay."""
    if "text" in output:
        return str(output["text"])
    if "labels" in output:
        return ", ".join(map(str, output["labels"])) or "–"
    if "value" in output:
        return f"{output['value']:.5g} {output.get('unit', '')}".rstrip()
    return str(output.get("label", "?"))
