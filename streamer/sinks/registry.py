"""Which sinks there are: entry points of the group ``streamer.sinks``, so that a package of yours can add one.

An entry point names a class that derives from :class:`streamer.sinks.sink.Sink`; none is imported before it is needed.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from streamer.errors import UsageError, extra
from streamer.sinks.sink import Sink

GROUP = "streamer.sinks"


def known() -> list[str]:
    """Names of the sinks."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def find(name: str) -> type[Sink]:
    """The sink of a name.

    Raises:
        UsageError: There is none, it cannot be imported, or it is none.
    """
    entries = list(entry_points(group=GROUP, name=name))
    if not entries:
        raise UsageError(f"there is no sink {name!r}; known: {', '.join(known())}")
    with extra("parquet", f"sink {name}"):
        try:
            found = entries[0].load()
        except (ImportError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError):
                raise
            raise UsageError(f"sink {name} ({entries[0].value}) cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Sink)):
        raise UsageError(f"sink {name} ({entries[0].value}) is no class that derives from streamer.sinks.sink.Sink")
    return found
