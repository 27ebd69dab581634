"""What comes out: ``watch``, ``dashboard``, ``results``, ``index``, ``search``, ``forget``."""

from __future__ import annotations

import sys
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import TIME, AsJson, Sessions, console, emit, load_settings, say
from streamer.errors import UsageError

if TYPE_CHECKING:
    from streamer.model.predictor import Predictor


def watch(
    session: Annotated[str | None, typer.Option(help="This session alone.")] = None,
    json: AsJson = False,
) -> None:
    """Show results as they come, a row for each session.

    Columns: the window's start, the model's decision and its score, what share of the window each sensor covers (–
    absent), why the window closed, and the milliseconds from Kafka to Redis. "open": the window still waits for a
    sensor, and the decision is for now; JSON has final results only.
    """
    from streamer.store import results
    from streamer.terminal import board

    only = [session] if session is not None else []
    with results.connected(load_settings()) as (client, keys):
        if json:
            for result in results.follow(client, keys, only):
                if result is not None:
                    emit(result.to_json())
        else:
            board.show(results.listen(client, keys, only), console())


def dashboard() -> None:
    """Serve the live page: frames, sound, words and decisions.

    For a browser, by default at http://localhost:8080/ (STREAMER_DASHBOARD_PORT). Other machines can reach it only if
    STREAMER_DASHBOARD_HOST allows it, and then with a token: STREAMER_DASHBOARD_TOKEN, else one that is printed. Runs
    until Ctrl-C.
    """
    from streamer import dashboard

    dashboard.run(load_settings(), typer.echo)


def results(
    session: Annotated[str, typer.Option(help="The session's name.")],
    json: AsJson = False,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Only windows that end at or after this time, e.g. 2026-05-01T12:00:00Z."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, the newest.")] = None,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Print what `streamer describe` says of them instead.")
    ] = False,
) -> None:
    """Print the results of a session, oldest first."""
    # If installed, redis-py imports it for metrics that this command does not use: a fifth of the command's time.
    sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]
    from streamer.store import results

    since_us = 0 if since is None else int(since.timestamp() * 1e6)
    if descriptions:
        _print_descriptions(session, since_us, limit, json)
        return
    with results.connected(load_settings()) as (client, keys):
        found = deque(results.results(client, keys, session, since_us), maxlen=limit)
        if not found and session not in (known := results.sessions(client, keys)):
            raise UsageError(f"no session {session!r} in Redis; there are: {', '.join(known[:10]) or 'none'}")
    if json:
        for result in found:
            emit(result.to_json())
    else:
        from streamer.terminal import tables

        console(stderr=False).print(tables.listing(found))


def _print_descriptions(session: str, since_us: int, limit: int | None, json: bool) -> None:
    from streamer.store import descriptions, results

    with results.connected(load_settings()) as (client, keys):
        found = deque(descriptions.read(client, keys, session, since_us), maxlen=limit)
    if not found:
        raise UsageError(f"session {session!r} has no descriptions from then on; run `streamer describe`")
    if json:
        for one in found:
            emit(one.to_json())
    else:
        from streamer.terminal import tables

        console(stderr=False).print(tables.descriptions(found))


def index(
    session: Sessions = None,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Do not add windows that end earlier, e.g. 2026-05-01T12:00:00Z."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue with new windows as they come, until Ctrl-C.")
    ] = False,
) -> None:
    """Index published windows, for `streamer search`.

    Adds what is new since the last time, and drops what Redis no longer has. The index is in the folder STREAMER_INDEX,
    or in Redis itself if Redis has vector sets (Redis 8).
    """
    import signal

    from streamer.retrieval import indexes, mirror
    from streamer.store import results
    from streamer.terminal.bars import Indexing

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    settings, only = load_settings(), tuple(dict.fromkeys(session or ()))
    since_us = 0 if since is None else max(0, int(since.timestamp() * 1e6))
    with (
        results.connected(settings) as (client, keys),
        indexes.opened(settings, client, keys, writable=True) as opened,
        opened.writing(),
    ):
        if missing := [name for name in only if not client.exists(keys.results(name))]:
            raise UsageError(f"no session {missing[0]!r} in Redis; `streamer watch` shows which there are")
        with Indexing(console()) as bar:
            done = mirror.update(client, keys, opened, only=only, since_us=since_us, on_progress=bar.updated)
            opened.refresh(bar.built)
        sizes = opened.sizes()
        say(f"{done.added} windows added, {done.dropped} dropped; {sum(sizes.values())} in the index of {opened.where}")
        if follow:
            for change in mirror.follow(client, keys, opened, only=only, since_us=since_us):
                if change.added or change.dropped:
                    say(f"{change.added} windows added, {change.dropped} dropped")


def search(
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="Words, as somebody in the scene would say them.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Find what this picture shows: JPEG, PNG or WebP.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Find what sounds like this file: WAV, FLAC, Ogg or MP3.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many, the best matches.")] = 10,
    session: Annotated[str | None, typer.Option(help="In this session alone.")] = None,
    sensor: Annotated[
        str | None,
        typer.Option(help="Take QUERY, picture or sound as this sensor's, of those that the model reads of its kind."),
    ] = None,
    thumbnails: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write the windows' newest frames to this folder.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Find windows that are like words, a picture or a sound.

    Best match first, among the windows that `streamer index` has indexed and the model of STREAMER_MODEL has seen.
    """
    import msgspec

    from streamer.retrieval.search import Query, find
    from streamer.terminal import tables

    if sum(given is not None for given in (query, image, audio)) != 1:
        raise UsageError('give one of QUERY, --image FILE and --audio FILE: streamer search "siren behind us"')
    settings = load_settings()
    if query is not None:
        wanted = Query("text", query, limit, session, sensor=sensor)
    elif image is not None:
        wanted = Query("image", _content(image), limit, session, str(image), sensor)
    else:
        assert audio is not None
        wanted = Query("audio", _content(audio), limit, session, str(audio), sensor)

    def model() -> Predictor:
        from streamer.model.predictor import Predictor

        return Predictor.load(settings.model, settings.device, settings)

    hits = find(settings, wanted, model, thumbnails)
    if json:
        for hit in hits:
            emit(msgspec.json.encode(hit))
    elif hits:
        out = console(stderr=False)
        out.print(tables.hits(hits, out.width))
    else:
        say("none of the windows that are indexed is in Redis any more; run `streamer index`")


def forget(session: Annotated[str, typer.Argument(help="The session's name.")]) -> None:
    """Delete what Redis and the search index hold of a session.

    Kafka's records stay until their retention ends.
    """
    from streamer.retrieval import indexes
    from streamer.store import results

    settings = load_settings()
    with results.connected(settings) as (client, keys):
        count = results.forget(client, keys, session)
        indexes.forget(settings, client, keys, session)
    say(f"forgot {session}: {count} results")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
