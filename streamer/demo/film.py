"""``streamer demo --film``: a film of the user's through ready senses, on this machine.

    film ─ replay ─► Kafka ─► worker: models/everyday ─► Redis ─► describe, speak, index ─► the live page
                       ▲ └──► transcribe
                       └─────────┘ words

Everything that was started here is stopped at the end, also after Ctrl-C and errors.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import redis
from rich.console import Console

from streamer import dashboard
from streamer.broker import topics
from streamer.demo import viewing
from streamer.demo.listening import check, patient
from streamer.demo.run import LEAD_S, PATIENCE_S, Feed, Lines, Screen, Tail, services, watched
from streamer.demo.summary import Expected
from streamer.demo.viewing import Viewing
from streamer.errors import Stop
from streamer.events import AUDIO, IMAGE, KINDS, TEXT, TOPIC_DEADLETTER, TOPIC_LATE, TOPIC_SPEECH
from streamer.feeds import replay
from streamer.feeds.replay.session import Recording
from streamer.kinds.text import parse_transcript
from streamer.local.program import Program
from streamer.local.worker import WorkerProcess, environment
from streamer.result import Result
from streamer.retrieval import indexes
from streamer.retrieval.search import Hit, Query, find
from streamer.settings import PACKAGED, STATE_DIR, Settings
from streamer.speak import records as speech
from streamer.store import descriptions, results
from streamer.store.results import Keys

MODEL = Path("models/everyday")
ROLES = ("speech", "voice", "objects", "sounds", "sentences", "synthesis")
READY_WITHIN_S = 60.0
FOLLOWERS_WITHIN_S = 30.0  # for what reads the results, after the last one
POLL_S = 0.2
HITS = 3
US_PER_S = 1_000_000


class Options(msgspec.Struct, frozen=True):
    """Which film, and what becomes of the servers.

    Attributes:
        headless: Plain lines of progress, no live table.
        keep: Leave Kafka and Redis running if the demo started them.
    """

    path: Path
    headless: bool = False
    keep: bool = False


def run(settings: Settings, options: Options, console: Console, show: Callable[[Viewing], None]) -> Viewing:
    """Show a film to the senses; returns what they found.

    Args:
        show: Called with that while the page is still there.

    Raises:
        Stop: A sense is missing, the film cannot be read, something cannot start, or a process died.
    """
    check(settings, ROLES, "a film's demo")
    recording = replay.open_all([options.path])
    sends = frozenset[int]().union(*(placed.part.sends for placed in recording.parts))
    listens = AUDIO in sends and TEXT not in sends
    for note in _notes(recording, sends):
        console.print(note, highlight=False, markup=False)
    with services(settings, options.keep, console) as there, ExitStack() as running:
        given = everyday(there, listens)
        topics.create(given)
        topics.ensure(given, TOPIC_SPEECH)
        tail = running.enter_context(Tail(given, TOPIC_DEADLETTER, TOPIC_LATE, TOPIC_SPEECH, KINDS[TEXT].topic))
        client, keys = running.enter_context(results.connected(given))
        programs = running.enter_context(Programs(given, console, listens))
        url = running.enter_context(dashboard.running(given))
        console.print(f"live page: {url}", highlight=False)
        found = _shown(given, options, recording, programs, (client, keys), tail, console)
        show(found)
        if not options.headless:
            console.print(f"the page stays until Ctrl-C: {url}#session={found.session}", highlight=False)
            _until_interrupted(programs)
    return found


def everyday(settings: Settings, listens: bool) -> Settings:
    """The settings for a film: the model of ready senses, and windows that wait for words if there will be any."""
    model = next((path for path in (MODEL, PACKAGED / MODEL) if path.is_dir()), MODEL)
    changed = settings.model_copy(update={"model": model})
    return patient(changed) if listens else changed


def _notes(recording: Recording, sends: frozenset[int]) -> Iterator[str]:
    yield from recording.notes
    if IMAGE not in sends:
        yield "it has no pictures: nothing will be seen"
    if TEXT in sends:
        yield "it has subtitles, which are its words: its sound is not transcribed"
    elif AUDIO not in sends:
        yield "it has no sound: nothing will be heard"


class Programs(ExitStack):
    """The processes that a film goes through, each with its log in .streamer/."""

    def __init__(self, settings: Settings, console: Console, listens: bool) -> None:
        super().__init__()
        self._settings = settings
        self._console = console
        self._listens = listens
        self.all: list[Program] = []

    def __enter__(self) -> Programs:
        names = ["worker", *(["transcribe"] if self._listens else []), "describe", "speak", "index"]
        self._console.print(f"starting {', '.join(names)}; their logs are in {STATE_DIR}", highlight=False)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self.worker = WorkerProcess(self._settings, STATE_DIR / "worker.log")
        ready = [self.worker]
        if self._listens:
            ready.append(WorkerProcess(self._settings, STATE_DIR / "transcribe.log", command="transcribe"))
        others = [self._program(*command) for command in (("describe",), ("speak",), ("index", "--follow"))]
        self.all = [*ready, *others]
        for program in self.all:
            self.push(program)
        with self._console.status("loading the senses"):
            for one in ready:
                one.wait_ready()
            for program, word in zip(others, ("describing", "speaking", "windows added"), strict=True):
                program.wait_for(lambda p=program, w=word: w in p.text(), READY_WITHIN_S, "be ready")  # type: ignore[misc]

    def _program(self, *command: str) -> Program:
        ports = {"STREAMER_DESCRIBE_PORT": "0", "STREAMER_SPEAK_PORT": "0"}
        log = STATE_DIR / f"{command[0]}.log"
        arguments = [sys.executable, "-m", "streamer", *command]
        return Program(arguments, log, environment(self._settings) | ports, name=f"streamer {command[0]}")

    def check(self) -> None:
        """Raise Stop if one of them has ended."""
        for program in self.all:
            program.check()


def _shown(
    settings: Settings,
    options: Options,
    recording: Recording,
    programs: Programs,
    store: tuple[redis.Redis, Keys],
    tail: Tail,
    console: Console,
) -> Viewing:
    """Send the film, and wait for all that follows from it."""
    client, keys = store
    session = f"film-{options.path.stem[:40]}-{secrets.token_hex(2)}"
    first_us = time.time_ns() // 1000 + round(LEAD_S * US_PER_S)
    start_us = -(-first_us // settings.hop_us) * settings.hop_us
    expected = list(_expected(settings, session, start_us, recording.length_us))
    with ExitStack() as running:
        screen = (Lines if options.headless else Screen)(console, expected, options.path.name)
        fresh = results.follow(client, keys, [session])
        feed = running.enter_context(Feed(settings, recording.outgoing(session, start_us), start_us, str(options.path)))
        running.enter_context(screen)
        began_s = time.monotonic()
        patience_s = PATIENCE_S + settings.longest_delay_ms / 1000
        seen = list(watched(fresh, screen, feed, programs.worker, expected, patience_s))
        seconds = time.monotonic() - began_s
    with console.status("waiting for descriptions, speech and the index"):
        late = _followed(settings, client, keys, session, seen, programs)
    for line in late:
        console.print(line, highlight=False)
    came = list(tail.records({session}))
    dead_letters, late_events = (
        sum(record.topic == settings.topic(topic) for record in came) for topic in (TOPIC_DEADLETTER, TOPIC_LATE)
    )
    told = list(descriptions.read(client, keys, session))
    query = viewing.query(seen)
    return viewing.view_of(
        seen,
        expected,
        session=session,
        records=feed.sent,
        seconds=seconds,
        dead_letters=dead_letters,
        late_events=late_events,
        phrases=_phrases(settings, came),
        descriptions=[one.text for one in told],
        said=_said(settings, came),
        query=query,
        hits=_hits(settings, session, query),
    )


def _expected(settings: Settings, session: str, start_us: int, length_us: int) -> Iterator[Expected]:
    for begin_us in range(start_us, start_us + length_us - settings.window_us + 1, settings.hop_us):
        yield Expected(session, begin_us, begin_us + settings.window_us, None)


def _followed(
    settings: Settings, client: redis.Redis, keys: Keys, session: str, seen: Sequence[Result], programs: Programs
) -> list[str]:
    """Wait until every reader of the results has come to the last one; gives a line for each that has not."""
    newest_us = max((result.end_us for result in seen), default=0)
    waiting = {"describe": keys.described(session), "speak": keys.spoken(session)}
    deadline_s = time.monotonic() + FOLLOWERS_WITHIN_S
    embeds = any(result.embedding for result in seen)
    while time.monotonic() < deadline_s:
        programs.check()
        behind = [name for name, key in waiting.items() if int(client.hget(key, "end_us") or 0) < newest_us]
        with indexes.opened(settings, client, keys) as index:
            covered = index.covered().get(session)
        if embeds and (covered is None or covered.upto_us < newest_us):
            behind.append("index")
        if not behind:
            return []
        time.sleep(POLL_S)
    return [f"streamer {name} is not done after {FOLLOWERS_WITHIN_S:.0f} s: see its log" for name in behind]


def _said(settings: Settings, came: Sequence[Any]) -> list[str]:
    """What was said aloud; a sentence that Kafka has twice, once."""
    read = (speech.read(record.key, record.headers) for record in came if record.topic == settings.topic(TOPIC_SPEECH))
    return list({utterance.id: utterance.text for utterance in read if utterance is not None}.values())


def _phrases(settings: Settings, came: Sequence[Any]) -> list[str]:
    """What was heard, or read in subtitles, as words."""
    topic = settings.source_topics[TEXT]
    return [parse_transcript(record.value)[0].text for record in came if record.topic == topic and record.value]


def _hits(settings: Settings, session: str, query: str) -> list[Hit]:
    if not query:
        return []
    from streamer.model.predictor import Predictor

    def model() -> Predictor:
        return Predictor.load(settings.model, settings.device, settings)

    return find(settings, Query("text", query, HITS, session), model)


def _until_interrupted(programs: Programs) -> None:
    try:
        while True:
            programs.check()
            time.sleep(POLL_S)
    except (KeyboardInterrupt, Stop):
        return
