"""All pictures of some cameras, decoded and made into JPEG, with PyAV alone: what ``streamer capture`` is beside.

python -m bench.programs.watching ADDRESS…             # prints `ready` once it sees all of them; until it is ended
python -m bench.programs.watching decoded ADDRESS…     # no JPEG
"""

from __future__ import annotations

import sys
import threading

import av

from streamer.feeds.replay.media.jpeg import Jpeg

DECODED = "decoded"


def watch(address: str, seen: threading.Semaphore, encode: bool) -> None:
    jpeg = Jpeg()
    with av.open(address, options={"rtsp_transport": "tcp", "analyzeduration": "200000"}) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, picture in enumerate(container.decode(video=0)):
            if encode:
                jpeg(picture)
            if number == 0:
                seen.release()


def main() -> None:
    seen, encode = threading.Semaphore(0), sys.argv[1] != DECODED
    addresses = sys.argv[1:] if encode else sys.argv[2:]
    threads = [threading.Thread(target=watch, args=(address, seen, encode), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    for _ in threads:
        seen.acquire()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
