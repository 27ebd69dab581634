"""Cameras and microphones, live: ``capture``."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.cli.options import load_settings, say
from streamer.errors import UsageError, extra


def capture(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Addresses of cameras and microphones, or devices.")
    ],
    session: Annotated[str, typer.Option(help="The session's name; all sources are its sensors.")],
    sent_as: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="SOURCE=SENSOR",
            help="Which sensor a source is, by its address or its number; can be repeated, e.g. for its sound.",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="At most so many pictures a second of each; default: all.")
    ] = None,
) -> None:
    """Send cameras and microphones to Kafka, live.

    SOURCE is rtsp://, rtmp://, http:// (HLS, MJPEG), srt:// or udp:// with a host; listen+rtsp:// or listen+rtmp://
    with an address of this machine, to which phones and encoders send; /dev/video0 for a webcam, alsa:default for a
    microphone. Pictures go to the sensor image and sound to audio, or where --as says. A source that is away is tried
    until it is back; while Kafka is away the oldest pictures are dropped. Runs until Ctrl-C. More: docs/capture.md.
    """
    with extra("feeds", "capturing"):
        from streamer.feeds import capture as capturing
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate takes a number, not {rate}")
    capturing.run(load_settings(), sources, session, sent_as or (), rate, say)
