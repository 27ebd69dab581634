"""What an alarm is, for those who raise it and for those who show it: neither rules nor Redis are known here."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from streamer.events import rfc3339

ALARM_TYPE = "streamer.alarm.v1"


class Alarm(msgspec.Struct, frozen=True):
    """A rule that became true.

    Attributes:
        start_us, end_us: The window that made it true.
        text: For people.
    """

    rule: str
    severity: str
    session: str
    start_us: int
    end_us: int
    text: str

    @property
    def id(self) -> str:
        """Follows from rule and window, so that a repetition is known; the session is percent-encoded."""
        return f"{quote(self.session, safe='')}/{self.rule}/{self.end_us}"

    def event(self) -> bytes:
        """A CloudEvent in structured mode."""
        return msgspec.json.encode({**self.attributes(), "data": {"id": self.id, **msgspec.structs.asdict(self)}})

    def attributes(self) -> dict[str, str]:
        """The context attributes of CloudEvents."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": f"/sessions/{quote(self.session, safe='')}/alarms",
            "type": ALARM_TYPE,
            "subject": f"{self.session}/{self.end_us}",
            "time": rfc3339(self.end_us),
            "datacontenttype": "application/json",
        }
