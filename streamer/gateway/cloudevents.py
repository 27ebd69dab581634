"""CloudEvents as requests and messages have them, taken apart into attributes and payload.

Binary, structured and batched mode are those of the HTTP binding 1.0.2, sections 3.1 to 3.3; JSON is the JSON format
1.0.2. A message of a WebSocket is one event: text in structured mode, or bytes in the form of :func:`framed`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from streamer.gateway.problems import Problem

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
JSON = "application/json"
PREFIX = "ce-"
NAME = re.compile("[a-z0-9]{1,40}")  # the specification: small letters and digits; advised: at most 20
MAX_ATTRIBUTES = 40
MAX_ATTRIBUTES_BYTES = 16 << 10
LENGTH_BYTES = 4  # of a framed message's head

Wanted = TypeVar("Wanted")

_TEXTS = msgspec.json.Decoder(dict[str, str])

_JSON_TYPE = re.compile(r"(?:[^;]*/|[^;]*\+)json\s*(?:;.*)?", re.IGNORECASE)


class Given(msgspec.Struct, frozen=True):
    """An event as it was sent: its attributes by name, ``datacontenttype`` among them, and its payload."""

    attributes: dict[str, str]
    payload: bytes


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes among the headers of a request in binary mode; ``content-type`` is one.

    Raises:
        Problem: A name or a text is none of CloudEvents.
    """
    found: dict[str, str] = {}
    for header, value in headers.items():
        name = header.lower()
        if name.startswith(PREFIX):
            if name[len(PREFIX) :] in found:
                raise Problem(400, f"header {header[:80]!r} comes twice")
            found[name[len(PREFIX) :]] = _unescaped(header, value)
        elif name == "content-type":
            found["datacontenttype"] = value
    return checked(found)


def structured(body: bytes | str) -> Given:
    """An event in structured mode.

    Raises:
        Problem: It is none.
    """
    return _event(_decoded(body, dict[str, msgspec.Raw]))


def batch(body: bytes, most: int) -> list[Given]:
    """The events of a batch.

    Raises:
        Problem: It is none, one of its events is none, or there are more than ``most``.
    """
    members = _decoded(body, list[dict[str, msgspec.Raw]])
    if len(members) > most:
        raise Problem(413, f"a batch has at most {most} events, not {len(members)}")
    found = []
    for index, member in enumerate(members):
        try:
            found.append(_event(member))
        except Problem as problem:
            problem.members["index"] = index
            raise
    return found


def framed(message: bytes) -> Given:
    """An event with its payload as it is: the length of a JSON object as 32 bits, big-endian, that object, the payload.

    The object has the attributes, ``datacontenttype`` among them. So a picture needs no base64.

    Raises:
        Problem: It is none.
    """
    end = LENGTH_BYTES + int.from_bytes(message[:LENGTH_BYTES], "big")
    if not LENGTH_BYTES < end <= len(message):
        raise Problem(400, "a binary message begins with the length of its attributes, 32 bits, big-endian")
    head = message[LENGTH_BYTES:end]
    try:
        attributes = _TEXTS.decode(head)  # as nearly all send them: twice as fast
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        members = _decoded(head, dict[str, msgspec.Raw])
        attributes = {name: _text(name, raw) for name, raw in members.items()}
    if not all(attributes.values()):
        attributes = {name: text for name, text in attributes.items() if text}
    return Given(checked(attributes), message[end:])


def checked(attributes: dict[str, str]) -> dict[str, str]:
    """The attributes, if their names and sizes are right.

    Raises:
        Problem: They are not.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise Problem(400, f"an event has at most {MAX_ATTRIBUTES} attributes, not {len(attributes)}")
    size = 0
    for name, text in attributes.items():
        if not NAME.fullmatch(name):
            raise Problem(400, f"attribute {name[:80]!r} is not named by small letters and digits")
        try:
            size += len(name) + len(text.encode())
        except UnicodeEncodeError:
            raise Problem(400, f"attribute {name!r} is not UTF-8 text") from None
    if size > MAX_ATTRIBUTES_BYTES:
        raise Problem(400, f"the attributes have {size} bytes, the limit is {MAX_ATTRIBUTES_BYTES}")
    return attributes


def _decoded(body: bytes | str, wanted: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem(400, f"not an event in JSON: {error}"[:200]) from None


def _event(members: dict[str, msgspec.Raw]) -> Given:
    data, data_base64 = members.pop("data", None), members.pop("data_base64", None)
    attributes = {name: text for name, raw in members.items() if (text := _text(name, raw))}
    if data is not None and data_base64 is not None:
        raise Problem(400, "an event has data or data_base64, not both")
    if data_base64 is not None:
        return Given(checked(attributes), _unpacked(data_base64))
    media_type = attributes.setdefault("datacontenttype", JSON)  # JSON format, section 3.1
    if data is None or bytes(data) == b"null":
        return Given(checked(attributes), b"")
    if not _JSON_TYPE.fullmatch(media_type) and bytes(data).startswith(b'"'):
        return Given(checked(attributes), msgspec.json.decode(data, type=str).encode("utf-8", "replace"))
    return Given(checked(attributes), bytes(data))


def _unpacked(data_base64: msgspec.Raw) -> bytes:
    try:
        return binascii.a2b_base64(msgspec.json.decode(data_base64, type=str).encode(), strict_mode=True)
    except (msgspec.DecodeError, ValueError):
        raise Problem(400, "data_base64 is not a text in base64") from None


def _text(name: str, raw: msgspec.Raw) -> str:
    """An attribute's value as text; empty if it is null, which means that it is not set."""
    value = msgspec.json.decode(raw)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise Problem(400, f"attribute {name[:80]!r} is neither a text nor a whole number nor a truth value")


def _unescaped(header: str, value: str) -> str:
    """HTTP binding, section 3.1.3.2: quotes around, then %XX of UTF-8."""
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1]
    try:
        return unquote(value, errors="strict") if "%" in value else value
    except UnicodeDecodeError:
        raise Problem(400, f"header {header[:80]!r} is not UTF-8 after %") from None
