"""Descriptions of windows in Redis, each once in effect.

One atomic Lua call adds a description and moves the cursor, only if the cursor is where the caller began. So a process
that was killed repeats nothing, and of two that run at once only one describes a window. The stream's entry id is
``<window end in µs>-0``, as in the results stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis
import redis.asyncio

from streamer.store.readers import Cursor
from streamer.store.results import PAGE, Keys

# KEYS: descriptions, described, results (one hash slot). ARGV: the cursor's end_us before (empty: none), end_us, state,
# maxlen, channel, message, then the description's fields and values. A session without results was forgotten, and gets
# no keys again.
ADD = """
if (redis.call('HGET', KEYS[2], 'end_us') or '') ~= ARGV[1] or redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local fields = {}
for i = 7, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], ARGV[2] .. '-0', unpack(fields))
redis.call('HSET', KEYS[2], 'end_us', ARGV[2], 'state', ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
"""


class Description(msgspec.Struct, frozen=True):
    """What a window shows, in a sentence or two.

    Attributes:
        start_us, end_us: The window ``[start, end)``, microseconds since the epoch.
        text: Plain English.
        by: ``outputs``: made from the result and the words; else the name of the model that wrote it.
        note: What is wrong or left out; empty if nothing is.
    """

    session: str
    start_us: int
    end_us: int
    text: str
    by: str
    note: str = ""

    @property
    def id(self) -> str:
        """The window's id, as its result has it: ``session/end_us``."""
        return f"{self.session}/{self.end_us}"

    def to_json(self) -> bytes:
        """One line of JSON as ``schemas/description.json`` describes it."""
        return msgspec.json.encode({"id": self.id, **msgspec.structs.asdict(self)})

    def to_fields(self) -> dict[str, str]:
        """The fields of the Redis stream entry."""
        return {"id": self.id, **{name: str(getattr(self, name)) for name in self.__struct_fields__}}

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Description:
        """Read back what :meth:`to_fields` wrote; unknown fields are ignored."""
        return msgspec.convert({name.decode(): value.decode() for name, value in fields.items()}, cls, strict=False)


class Descriptions:
    """Writes descriptions, and with each moves the cursor of the one who describes.

    Args:
        maxlen: Descriptions kept a session, about.
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, maxlen: int) -> None:
        self._client = client
        self._keys = keys
        self._maxlen = maxlen
        self._script = client.register_script(ADD)

    async def add(self, before: Cursor, description: Description, state: bytes) -> Cursor | None:
        """Add the description of the window that follows ``before``.

        Returns:
            The new cursor; ``None`` if the cursor in Redis is another, or the session was forgotten: nothing was done.

        Raises:
            RedisError, OSError: Redis does not answer; the description may have been added or not.
        """
        keys, session = self._keys, description.session
        args: list[Any] = [
            "" if before.end_us is None else before.end_us,
            description.end_us,
            state,
            self._maxlen,
            keys.described_channel,
            description.to_json(),
        ]
        for pair in description.to_fields().items():
            args += pair
        added = await self._script(
            keys=[keys.descriptions(session), keys.described(session), keys.results(session)], args=args
        )
        return Cursor(description.end_us, state) if added else None


def read(
    client: redis.Redis, keys: Keys, session: str, since_us: int = 0, until_us: int | None = None
) -> Iterator[Description]:
    """A session's descriptions of windows that end in ``[since_us, until_us]``, in order.

    Args:
        until_us: ``None``: to the newest.
    """
    start, last = f"{max(0, since_us)}-0", "+" if until_us is None else f"{until_us}-0"
    while True:
        page = client.xrange(keys.descriptions(session), min=start, max=last, count=PAGE)
        for _, fields in page:
            yield Description.from_fields(fields)
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"


def of_windows(client: redis.Redis, keys: Keys, windows: Sequence[tuple[str, int]]) -> list[str | None]:
    """The descriptions of windows, each a session and its end in µs; ``None`` for one that has none."""
    with client.pipeline(transaction=False) as pipe:
        for session, end_us in windows:
            pipe.xrange(keys.descriptions(session), min=f"{end_us}-0", max=f"{end_us}-0")
        pages: list[Any] = pipe.execute()
    return [Description.from_fields(page[0][1]).text if page else None for page in pages]
