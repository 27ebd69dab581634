"""A device with a camera and a speed sensor sends for a few seconds: `python send_from_device.py cab-7 frame.jpg`."""

import sys
import time
from pathlib import Path

from streamer import Producer, Settings

SECONDS, FRAMES_HZ, SPEED_HZ = 3, 5, 20


def main(session: str, picture: Path) -> None:
    """Send as a device does: each record when it is there, its time left out where that is now."""
    frame = picture.read_bytes()  # a camera gives another one each time
    with Producer(Settings.load()) as producer:  # finds Kafka by STREAMER_KAFKA, or what `streamer up` started
        for _ in range(SECONDS):
            for _ in range(FRAMES_HZ):
                producer.frame(session, frame)
                time.sleep(1 / FRAMES_HZ)
            producer.telemetry(session, {"speed": [13.9] * SPEED_HZ}, rate_hz=SPEED_HZ)  # of the second that ends now
        producer.end(session)  # the last windows need not wait for more


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
