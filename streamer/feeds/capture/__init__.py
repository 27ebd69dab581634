"""Cameras and microphones to Kafka, live, through PyAV (FFmpeg).

address     what a source is called: its protocol, its options, what it can send
camera      one source: opened, read, and opened again for ever
clock       the time of each picture and sound, and which clock told it
pictures    video packets -> chosen -> JPEG             sound     audio packets -> chunks that tile
outbox      what waits for Kafka: bounded, the oldest is dropped
process     all of them together: signals, endpoints, the end
"""

from streamer.feeds.capture.process import run

__all__ = ["run"]
