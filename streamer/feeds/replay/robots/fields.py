"""What is in a message: its bytes, its time and its numbers, in a tree of dictionaries whatever the encoding was."""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from streamer.feeds.replay.part import S_US

Tree = Mapping[str, Any]

MAX_LIST = 64  # longer lists of numbers are scans and maps, not channels
# the fields of a time in JSON, ROS 2, Protobuf and ROS 1
TIMES = ({"sec", "nsec"}, {"sec", "nanosec"}, {"seconds", "nanos"}, {"secs", "nsecs"})
LONE = ("value", "data")  # a message with only this number becomes a channel named after its topic
NAMED_BY = ("name", "key", "child_frame_id")  # what an element of a list is called by
NAV_SAT_FIX = "sensor_msgs/NavSatFix"
POSITION = ("latitude", "longitude", "altitude")


def text(tree: Tree, name: str) -> str:
    """A field that must be text.

    Raises:
        ValueError: It is missing or something else.
    """
    value = tree.get(name)
    if not isinstance(value, str):
        raise ValueError(f"no text in field {name!r}")
    return value


def whole(tree: Tree, name: str, default: int | None = None) -> int:
    """A field that must be a whole number.

    Raises:
        ValueError: It is something else, or missing without a default.
    """
    value = tree.get(name, default)
    if not isinstance(value, int):
        raise ValueError(f"no whole number in field {name!r}")
    return value


def data(tree: Tree, name: str = "data") -> bytes:
    """A field of bytes; JSON has them in base64.

    Raises:
        ValueError: It is missing or something else.
    """
    value = tree.get(name)
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray) and value.dtype.itemsize == 1:
        return value.tobytes()
    if isinstance(value, str):
        try:
            return binascii.a2b_base64(value, strict_mode=True)
        except binascii.Error as error:
            raise ValueError(f"field {name!r} is no base64: {error}") from None
    raise ValueError(f"no bytes in field {name!r}")


def stamp_us(tree: Tree) -> int | None:
    """The time that the sender put into a message, in µs; ``None`` if there is none, or 0, which means unset.

    It is ``header.stamp`` (ROS), ``timestamp`` (Foxglove) or ``stamp``.
    """
    header = tree.get("header")
    found = header.get("stamp") if isinstance(header, Mapping) else tree.get("timestamp", tree.get("stamp"))
    if not isinstance(found, Mapping) or set(found) not in TIMES:
        return None
    seconds, fraction = found.values()
    if not isinstance(seconds, int) or not isinstance(fraction, int):
        return None
    return seconds * S_US + fraction // 1000 or None


def measurements(kind: str, tree: Tree, left_out: set[str]) -> dict[str, float]:
    """The numbers of a message that measure something, each with the path to it.

    Args:
        kind: Name of its type.
        left_out: Receives the paths of lists that are no channels.
    """
    found = dict(numbers(tree, left_out))
    if kind == NAV_SAT_FIX and found.get("status.status", 0.0) < 0:  # no fix: the position is not measured
        for name in POSITION:
            found.pop(name, None)
    if len(found) == 1 and next(iter(found)) in LONE:
        return {"": next(iter(found.values()))}
    return found


def numbers(tree: Tree, left_out: set[str], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a tree, each with the path to it.

    Times, texts and a message's header are no numbers. Left out are covariances, bytes, lists of more than ``MAX_LIST``
    elements, and a field whose ``…_covariance`` begins with -1: ROS' way to say that it is not measured.
    """
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, bool | int | float):
            yield path, float(value)
        elif isinstance(value, Mapping):
            if name == "header" or set(value) in TIMES or _unmeasured(tree.get(f"{name}_covariance")):
                continue
            yield from numbers(value, left_out, f"{path}.")
        elif isinstance(value, np.ndarray | Sequence) and not isinstance(value, str | bytes):
            if "covariance" in name or len(value) > MAX_LIST or getattr(value, "dtype", None) == np.uint8:
                if len(value):
                    left_out.add(path)
                continue
            elements = value.tolist() if isinstance(value, np.ndarray) else value
            yield from numbers(_named(tree, elements), left_out, f"{path}.")
        elif isinstance(value, bytes) and value:
            left_out.add(path)


def _unmeasured(covariance: Any) -> bool:
    return isinstance(covariance, np.ndarray | Sequence) and len(covariance) > 0 and covariance[0] == -1


def _named(parent: Tree, elements: Sequence[Any]) -> dict[str, Any]:
    """The elements of a list by name, where they have names; else by their places.

    Names are in the elements themselves (diagnostics, transforms), or in a list beside theirs (joint states). Places
    would not do: which transform or joint is the first one differs from message to message.
    """
    names: list[Any] = []
    if elements and all(isinstance(one, Mapping) for one in elements):
        by = next((key for key in NAMED_BY if all(isinstance(one.get(key), str) for one in elements)), None)
        if by is not None:
            names = [one[by] for one in elements]
            elements = [_value(one) for one in elements] if by == "key" else elements
    else:
        names = list(parent.get("name") or ()) if isinstance(parent.get("name"), Sequence) else []
    if len(names) != len(elements) or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
        names = [str(place) for place in range(len(elements))]
    return dict(zip(names, elements, strict=True))


def _value(pair: Tree) -> Any:
    """The number of a ``diagnostic_msgs/KeyValue``, which has it as text."""
    if set(pair) != {"key", "value"}:
        return pair
    try:
        number = float(pair["value"])
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
