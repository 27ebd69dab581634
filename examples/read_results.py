"""Print what the model said of a session: `python read_results.py cab-7`. Needs redis-py and numpy, not streamer."""

import json
import os
import sys
from typing import Any
from urllib.parse import quote

import numpy as np
import redis

URL = os.environ.get("STREAMER_REDIS", "redis://localhost:6379/0")
PREFIX = os.environ.get("STREAMER_KEY_PREFIX", "streamer")


def main(session: str) -> None:
    """A session's results are a stream: an entry a window, its id the window's end in microseconds."""
    client = redis.Redis.from_url(URL)
    entries: Any = client.xrange(f"{PREFIX}:{{{quote(session, safe='')}}}:results")
    for _, fields in entries:
        embedding = np.frombuffer(fields[b"embedding"], "<f2")  # raw bytes; every other field is text
        outputs = json.loads(fields[b"outputs"])
        print(fields[b"end_us"].decode(), fields[b"present"].decode(), json.dumps(outputs), f"{embedding.size} numbers")
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
