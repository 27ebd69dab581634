"""An utterance as a record of the speech topic: a CloudEvent in binary mode, whose value is a WAV file.

Its id follows from the session and the window, and the same words give the same samples: written again after a crash,
a record is the same to the byte, and readers that know the id pass over it.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from streamer.events import MAX_SESSION_BYTES, SPEECH_TYPE, moment_us, rfc3339
from streamer.speak.sentences import Severity, Utterance

CONTENT_TYPE = "audio/wav"


def headers(utterance: Utterance, duration_us: int) -> list[tuple[str, bytes]]:
    """CloudEvents headers of an utterance; ``ce_subject`` is the window's id."""
    found = {
        "ce_specversion": "1.0",
        "ce_id": utterance.id,
        "ce_source": f"/sessions/{quote(utterance.session, safe='')}/speech",
        "ce_type": SPEECH_TYPE,
        "ce_subject": f"{utterance.session}/{utterance.end_us}",
        "ce_time": rfc3339(utterance.end_us),
        "ce_durationus": str(duration_us),
        "ce_severity": utterance.severity.name.lower(),
        "ce_text": utterance.text,
        "content-type": CONTENT_TYPE,
    }
    if utterance.supersedes:
        found["ce_supersedes"] = utterance.supersedes
    if utterance.rule:
        found["ce_rule"] = utterance.rule
    return [(name, value.encode()) for name, value in found.items()]


def read(key: bytes | None, pairs: Iterable[tuple[str, bytes | None]]) -> Utterance | None:
    """The utterance of a record; ``None`` if it is none: anybody may write to a topic."""
    found = {name: value for name, value in pairs if value is not None}
    if found.get("ce_type") != SPEECH_TYPE.encode() or key is None or not 0 < len(key) <= MAX_SESSION_BYTES:
        return None
    try:
        text = {name: found[name].decode() for name in ("ce_time", "ce_text", "ce_severity")}
        severity = Severity[text["ce_severity"].upper()]
        supersedes, rule = (found.get(name, b"").decode() for name in ("ce_supersedes", "ce_rule"))
        return Utterance(key.decode(), moment_us(text["ce_time"]), text["ce_text"], severity, supersedes, rule)
    except (KeyError, ValueError):
        return None
