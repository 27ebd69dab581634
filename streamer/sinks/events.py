"""A result as a CloudEvent 1.0, in binary mode (Kafka) and in structured mode (HTTP).

Id and source together name a window, whoever sends it and however often.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from streamer.events import RESULT_TYPE, rfc3339
from streamer.result import Result

CONTENT_TYPE = "application/json"


def attributes(result: Result) -> dict[str, str]:
    """The context attributes: ``id`` is the window's, ``subject`` the session, ``time`` the window's end."""
    return {
        "specversion": "1.0",
        "id": result.id,
        "source": f"/sessions/{quote(result.session, safe='')}/results",
        "type": RESULT_TYPE,
        "subject": result.session,
        "time": rfc3339(result.end_us),
        "datacontenttype": CONTENT_TYPE,
    }


def headers(result: Result) -> list[tuple[str, bytes]]:
    """Headers of the record in Kafka; its value is the result as JSON."""
    named = attributes(result)
    content_type = named.pop("datacontenttype")
    found = {f"ce_{name}": value for name, value in named.items()} | {"content-type": content_type}
    return [(name, value.encode()) for name, value in found.items()]


def structured(result: Result) -> bytes:
    """The whole event as JSON, without the embedding."""
    return msgspec.json.encode({**attributes(result), "data": msgspec.Raw(result.to_json())})
