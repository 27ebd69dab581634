"""Tags that models/everyday gives to real recordings of which it is known what is heard."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from bench import rig
from bench.senses import Table
from bench.senses.films import mono
from streamer.model.spec import read_spec
from streamer.senses.sounds import RATE_HZ, SoundEvents
from streamer.settings import Settings

HEARD = (  # glob, what it is, tags that are right
    ("librivox/*.wav", "audio books", ("speech",)),
    ("fsdd/*.wav", "single spoken digits, by telephone's rate", ("speech",)),
    ("grid/*.mpg", "short sentences", ("speech",)),
    ("nasa/nasa_13013.mp4", "a narrator over music", ("speech", "music")),
    ("gopro/max-heromode.mp4", "a walk; what is heard is not known", ()),
    ("driving/solidWhiteRight.mp4", "digital silence", ()),
)


def measure(settings: Settings, data: Path) -> Table:
    """The share of seconds with each tag."""
    spec = read_spec(rig.ROOT / "models" / "everyday").senses
    assert spec is not None
    assert spec.sounds is not None
    sounds = SoundEvents(settings)
    rows, seconds_heard, spent_s = [], 0.0, 0.0
    for pattern, about, right in HEARD:
        tags: Counter[str] = Counter()
        windows = 0
        for path in sorted(data.glob(pattern)):
            samples_S = mono(path, RATE_HZ)
            for start in range(0, max(1, len(samples_S) - RATE_HZ // 2), RATE_HZ):
                began_s = time.process_time()
                scores = sounds.scores(samples_S[start : start + RATE_HZ])
                spent_s += time.process_time() - began_s
                seconds_heard += 1
                windows += scores is not None
                for tag, classes in spec.sounds.tags.items():
                    least = spec.sounds.thresholds.get(tag, spec.sounds.threshold)
                    tags[tag] += scores is not None and max(scores[name] for name in classes) >= least
        others = ", ".join(f"{tag} {count}" for tag, count in tags.most_common() if count and tag not in right)
        found = ", ".join(f"{tag} {tags[tag]}" for tag in right)
        rows.append((about, str(windows), found or "–", others or "–"))
    return Table(
        "Windows of a second of the recordings of the tests, by the tags of models/everyday; "
        f"{1000 * spent_s / seconds_heard:.1f} ms of CPU for a second of sound. Among them is no siren and no horn: "
        "how well those are heard on a street is not known.",
        ("recordings", "windows", "what is there, in so many", "other tags"),
        rows,
    )
