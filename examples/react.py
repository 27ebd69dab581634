"""Call a webhook when a result has a label: `python react.py action=brake http://localhost:8000/alarm`.

Pub/sub keeps nothing: results that are published while this does not run are missed. Where none may be missed, read the
stream as `read_results.py` does.
"""

import json
import os
import sys
from typing import Any
from urllib.request import Request, urlopen

import redis

URL = os.environ.get("STREAMER_REDIS", "redis://localhost:6379/0")
PREFIX = os.environ.get("STREAMER_KEY_PREFIX", "streamer")


def main(wanted: str, webhook: str) -> None:
    """Listen to the results of all sessions until interrupted."""
    head, _, label = wanted.partition("=")
    channel: Any = redis.Redis.from_url(URL).pubsub()
    channel.subscribe(f"{PREFIX}:results")
    for message in channel.listen():
        if message["type"] == "subscribe":
            print("listening", flush=True)
            continue
        result = json.loads(message["data"])
        if result["outputs"].get(head, {}).get("label") == label:
            print(result["id"], label, flush=True)
            call(webhook, {"session": result["session"], "end_us": result["end_us"], head: label})


def call(webhook: str, content: dict[str, object]) -> None:
    """POST as JSON."""
    request = Request(webhook, json.dumps(content).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=5):
        pass  # an answer above 399 is an error


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
