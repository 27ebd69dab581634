"""Word error rates of the recognisers that are here, each given whole recordings."""

from __future__ import annotations

import time
from pathlib import Path

from bench.senses import Table
from bench.transcribe import plain, recordings
from streamer.demo.listening import word_errors
from streamer.errors import Stop
from streamer.senses import files, speech
from streamer.senses.table import rows as known
from streamer.settings import Settings

KINDS = {"novel": "two sentences of a novel, read", "grid": "sentences of GRID", "digit": "single digits at 8 kHz"}


def measure(settings: Settings, data: Path) -> Table:
    """Words wrong, missing or too many ÷ words said."""
    talks = list(recordings(data))
    ready = [row.name for row in known("speech") if files.state(row, settings.senses_dir) == "ready"]
    if not ready:
        raise Stop("no recogniser is here; `streamer senses` says how to get one")
    rows = []
    for name in ready:
        recogniser = speech.load(files.find("speech", settings.model_copy(update={"senses": {"speech": name}})))
        began_s = time.process_time()
        heard = [recogniser.hear(talk.samples_S).text for talk in talks]
        spent_s = time.process_time() - began_s
        long_s = sum(len(talk.samples_S) for talk in talks) / speech.RATE_HZ
        for kind, about in KINDS.items():
            pairs = [
                (plain(talk.words), plain(text)) for talk, text in zip(talks, heard, strict=True) if talk.kind == kind
            ]
            said, wrong = sum(len(said) for said, _ in pairs), sum(word_errors(said, text) for said, text in pairs)
            factor = f"{spent_s / long_s:.2f}" if kind == next(iter(KINDS)) else ""
            rows.append((name, about, f"{wrong / said:.0%}", f"{wrong} of {said}", factor))
    about = (
        "Error rates of words, after numbers and punctuation are made equal. The recordings are few and clean: this "
        "tells what to expect, and ranks nothing. No dictionary helps in GRID (“bin blue at f two now”)."
    )
    return Table(about, ("recogniser", "recordings", "word error rate", "words", "CPU s ÷ s of sound"), rows)
