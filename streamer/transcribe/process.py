"""The process of ``streamer transcribe``: what it loads, its signals, its endpoints, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from streamer.broker import topics
from streamer.clients import codecs
from streamer.errors import Stop, extra
from streamer.observe import logs
from streamer.observe.endpoints import Endpoints
from streamer.senses import files, speech
from streamer.senses.speech import Recogniser
from streamer.senses.voice import VoiceNetwork
from streamer.senses.wordtimes import Timed, WordTimes
from streamer.settings import Settings
from streamer.transcribe.metrics import TranscribeMetrics

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Transcribe until SIGTERM or SIGINT.

    Raises:
        Stop: It cannot start or go on, with the reason. Else the process ends here, with exit code 1 after a crash.
    """
    logs.begin(settings)
    crashed = asyncio.run(_main(settings))
    logging.shutdown()
    os._exit(1 if crashed else 0)  # a recogniser that hangs leaves a thread for which the interpreter would wait


def load(settings: Settings) -> tuple[VoiceNetwork, Recogniser]:
    """The networks that the settings name.

    Raises:
        UsageError: One is not there, or does not load.
    """
    network = VoiceNetwork(files.find("voice", settings).files["model"])
    recogniser = speech.load(files.find("speech", settings), settings.transcribe_language)
    return network, Timed(recogniser, WordTimes()) if settings.transcribe_word_times else recogniser


async def _main(settings: Settings) -> bool:
    with extra("senses", "transcribing"):
        from streamer.transcribe.transcriber import Transcriber
    loop = asyncio.get_running_loop()
    codecs.check()
    partitions = await loop.run_in_executor(None, topics.check, settings)
    _warn(settings)
    metrics = TranscribeMetrics()
    transcriber = Transcriber(settings, partitions, *load(settings), metrics)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, transcriber.stop)
    endpoints = Endpoints(metrics.registry, transcriber.not_ready, transcriber.degraded, transcriber.observe)
    await endpoints.start(settings.host, settings.port)
    log.info("metrics and probes on http://%s:%d", settings.host, endpoints.port)
    try:
        await loop.run_in_executor(None, transcriber.run)
    except Stop:
        raise
    except Exception as error:
        log.error("crashed: %r", error, exc_info=error)
        return True
    finally:
        await endpoints.stop()
    log.info("stopped")
    return False


def _warn(settings: Settings) -> None:
    """Windows that do not wait for words close before they are said.

    Raises:
        UsageError: No sensor would take the transcripts.
    """
    wait_ms = settings.sensors[settings.transcript_sensor].max_delay_ms
    longest_ms = settings.transcribe_longest_ms + settings.transcribe_silence_ms
    if wait_ms < longest_ms:
        log.warning(
            "windows wait %d ms for words, an utterance may take %d ms to say: the windows in which a long one begins "
            "may close before its words come; see docs/transcribe.md",
            wait_ms,
            longest_ms,
        )
