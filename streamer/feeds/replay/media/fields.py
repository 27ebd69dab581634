"""Interlaced pictures, whose odd lines are half a picture's time later than their even ones, made whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.filter import Graph

# one picture of each picture, and only of those that are marked as interlaced:
# https://ffmpeg.org/ffmpeg-filters.html#bwdif
BWDIF = "mode=send_frame:deint=interlaced"


def deinterlaced(timed: Iterable[tuple[Any, int]], begun: Callable[[], None]) -> Iterator[tuple[Any, int]]:
    """Pictures with their times; from the first that is interlaced on, through FFmpeg's filter, which holds one.

    Args:
        begun: Called at the first that is interlaced.
    """
    held: deque[int] = deque()
    graph: Any = None
    form: object = None
    for picture, time_us in timed:
        if graph is None and not picture.interlaced_frame:
            yield picture, time_us
            continue
        found = (picture.width, picture.height, picture.format.name)
        if found != form:
            if graph is None:
                begun()
            yield from _rest(graph, held)
            graph, form = _graph(picture), found
        graph.push(picture)
        held.append(time_us)
        yield from _ready(graph, held)
    yield from _rest(graph, held)


def _graph(picture: Any) -> Any:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
    )
    bwdif, sink = graph.add("bwdif", BWDIF), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: Any, held: deque[int]) -> Iterator[tuple[Any, int]]:
    while held:
        try:
            picture = graph.pull()
        except (BlockingIOError, EOFError):
            return
        yield picture, held.popleft()


def _rest(graph: Any, held: deque[int]) -> Iterator[tuple[Any, int]]:
    if graph is not None:
        graph.push(None)
        yield from _ready(graph, held)
