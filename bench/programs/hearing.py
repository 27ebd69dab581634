"""The recogniser alone, run by ``bench.transcribe``: hears the sounds of a file one after the other."""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main() -> None:
    """Print as JSON what it heard, and the CPU seconds without loading."""
    from streamer.senses import files, speech
    from streamer.settings import Settings

    recogniser = speech.load(files.find("speech", Settings.load()))
    with np.load(sys.argv[1]) as sounds:
        samples = [sounds[name] for name in sounds.files]
    before_s = time.process_time()
    texts = [recogniser.hear(samples_S).text for samples_S in samples]
    print(json.dumps({"cpu_s": time.process_time() - before_s, "texts": texts}))


if __name__ == "__main__":
    main()
