"""What a dead letter advises where a client's habit, not its data, made the record wrong.

``docs/clients.md`` has the clients that were tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

STRUCTURED = "application/cloudevents"  # +json, -batch+json: the event is in the value (Kafka binding 1.0.2, 3.3)

# Bytes that a JSON serializer turned into text. Sound or a picture of which this is true by chance has 4^-16 at most.
JSON_BASE64 = re.compile(rb'"(?:[A-Za-z0-9+/]{4}){4,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"')


def missing(name: str, headers: Mapping[str, str]) -> str:
    """Words for a header that a record lacks, or that is empty, naming what was sent in its place."""
    if headers.get("content-type", "").strip().lower().startswith(STRUCTURED):
        return (
            f"no {name} header: the CloudEvent is in structured mode (content-type {headers['content-type'][:80]!r}); "
            "send it in binary mode, attributes as ce_ headers and the payload alone as the value"
        )
    if name in headers:
        return f"the {name} header is empty"
    alike = next((given for given in headers if _plain(given) == _plain(name)), None)
    if alike is not None:
        return f"no {name} header: {alike[:80]!r} must be named {name!r}"
    if name == "content-type" and "ce_datacontenttype" in headers:
        return "no content-type header: send ce_datacontenttype as 'content-type'"
    return f"no {name} header"


def quoted(text: str) -> str:
    """Words to add where a header's text would be a JSON string: Spring's mappers can write them so."""
    if len(text) < 2 or not text.startswith('"') or not text.endswith('"'):
        return ""
    try:
        json.loads(text)
    except ValueError:
        return ""
    return ": it is in JSON quotes, send the text without them"


def serialized(payload: bytes) -> str:
    """Words for bytes that went through a JSON serializer; empty if they did not."""
    if not payload.startswith(b'"') or not JSON_BASE64.fullmatch(payload):
        return ""
    return "the payload is base64 in JSON quotes: set the producer's value serializer to one for bytes"


def _plain(name: str) -> str:
    """A header's name as other bindings may write it: HTTP has ``ce-type``, some clients ``CE_Type`` or ``ceType``."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
