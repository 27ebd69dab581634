"""The process of `streamer speak`: its signals, its port, its connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.clients import redis as redis_clients
from streamer.errors import UsageError
from streamer.events import TOPIC_SPEECH
from streamer.model.spec import read_spec
from streamer.observe.health import Service
from streamer.senses import synthesis
from streamer.settings import Settings
from streamer.speak.metrics import Metrics
from streamer.speak.mouth import Mouth
from streamer.speak.sentences import Speaker, Utterance, sentences
from streamer.store import following
from streamer.store.readers import Cursors, Reader
from streamer.store.results import Keys


def run(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    since_us: int | None = None,
    folder: Path | None = None,
    on_utterance: Callable[[Utterance], object] = lambda utterance: None,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Speak until SIGTERM or Ctrl-C.

    Args:
        only: Only these sessions; empty for all.
        since_us: In sessions in which nothing was said yet, begin with the windows that end at or after this time;
            ``None``: with those that are published from now on.
        folder: Where WAV files are written too; ``None``: nowhere.
        on_utterance: Called with each utterance once Kafka has it.
        say: Called once it listens, with a line for people.

    Raises:
        UsageError: There is no voice, nothing to be said, Kafka or Redis does not answer, or the port is taken.
        Stop: Redis refuses us, or a file cannot be written.
    """
    following.prepare(settings)
    speaker = Speaker(sentences(read_spec(settings.model)))
    voice = synthesis.voice(settings)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    topic = topics.ensure(settings, TOPIC_SPEECH)

    async def speak() -> None:
        metrics = Metrics()
        kafka, redis = (Service(name, metrics.retries.labels(name.lower()).inc) for name in ("Kafka", "Redis"))
        async with AsyncExitStack() as stack:
            producer = await asyncio.to_thread(kafka_clients.producer, settings, acks="all", linger_ms=5)
            stack.push_async_callback(asyncio.to_thread, producer.close, timeout=1)
            client = redis_clients.async_client(settings, socket_timeout=following.SOCKET_TIMEOUT_S)
            stack.push_async_callback(client.aclose)
            keys = Keys(settings.key_prefix)
            cursors = Cursors(client, keys, keys.spoken)
            mouth = Mouth(
                speaker, voice, producer, topic, cursors, metrics=metrics, folder=folder, on_utterance=on_utterance
            )
            reader = Reader(
                client, keys, cursors, mouth.take, redis=redis, other=kafka, only=only, since_us=since_us or 0
            )
            if since_us is None:
                await reader.skip()
            await following.follow(
                reader,
                (kafka, redis),
                metrics.registry,
                metrics.behind_seconds,
                host=settings.host,
                port=settings.speak_port,
                port_setting="STREAMER_SPEAK_PORT",
                say=lambda address: say(f"speaking by {voice.name}; {address}"),
            )

    asyncio.run(speak())
