"""What a source is called, and what FFmpeg is told to open it.

rtsp://CAMERA/PATH            an IP camera, over TCP; udp+rtsp://: its packets by UDP; rtsps://: TLS
rtmp://SERVER/APP/NAME        a media server
listen+rtsp://0.0.0.0:8554/X  wait for one that sends itself: RTSP (RECORD), RTMP
srt://HOST:PORT               where FFmpeg has it; ?mode=listener waits
http://HOST/x.m3u8            HLS; any other http(s):// address: MJPEG, or what FFmpeg finds there
udp://:PORT  rtp://:PORT      MPEG transport stream
/dev/video0  v4l2:/dev/video0 a webcam
alsa:default  alsa:hw:1       a microphone, by its name for ALSA
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, Sensor, Sensors
from streamer.settings import PASSWORD

NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "udp", "rtp")
LISTEN, UDP = "listen+", "udp+"
V4L2, ALSA = "v4l2:", "alsa:"
LISTENING = {
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": "86400"},
    "rtmp": {"listen": "1"},
}  # s; no more than int
UDP_BUFFER_BYTES = 4 << 20  # a key frame comes at once; FFmpeg's default loses parts of it
FORMS = "rtsp://, rtmp://, srt://, http://, udp://, /dev/video0, alsa:default; docs/capture.md has all"
KINDS = (IMAGE, AUDIO)


class Source(NamedTuple):
    """A camera, a microphone, or both.

    Attributes:
        number: Its place among the sources, from 1.
        name: Its address for people: without password and query.
        url: What FFmpeg opens.
        form: FFmpeg's name of the format; ``None``: it looks.
        options: For FFmpeg.
        kinds: Numbers of the kinds that it can have.
        listens: It waits for a sender, so that silence before the first packet is no fault.
        device: Its time stamps are those of this machine's clock.
    """

    number: int
    name: str
    url: str
    form: str | None
    options: Mapping[str, str]
    kinds: tuple[int, ...]
    listens: bool = False
    device: bool = False


def parse(number: int, text: str) -> Source:
    """The source that a user names.

    Raises:
        UsageError: There is none of this kind; or, of a device, it is not there.
    """
    if text.startswith(ALSA):
        return Source(number, text, text.removeprefix(ALSA), "alsa", {}, (AUDIO,), device=True)
    if text.startswith((V4L2, "/dev/")):
        return _webcam(number, text.removeprefix(V4L2))
    rest, listens, udp = text.removeprefix(LISTEN), text.startswith(LISTEN), text.startswith(UDP)
    rest = rest.removeprefix(UDP)
    scheme, mark, _ = rest.partition("://")
    if not mark and Path(text).exists():
        raise UsageError(f"{text} is a file: `streamer replay {text}` sends recordings")
    if not mark or scheme not in NETWORK:
        raise UsageError(f"{_shown(text)} is no source that can be captured; these can: {FORMS}")
    if listens and scheme not in LISTENING:
        raise UsageError(f"{_shown(text)}: listen+ is for rtsp:// and rtmp:// (SRT: srt://0.0.0.0:PORT?mode=listener)")
    if udp and scheme != "rtsp":
        raise UsageError(f"{_shown(text)}: udp+ is for rtsp://")
    options = dict(LISTENING[scheme]) if listens else {}
    if scheme.startswith("rtsp") and not listens:
        options |= {"rtsp_transport": "udp" if udp else "tcp"}
    if udp:
        options["buffer_size"] = str(UDP_BUFFER_BYTES)
    _check_host(text, rest)
    waits = listens or (scheme == "srt" and "mode=listener" in rest) or scheme in ("udp", "rtp")
    return Source(number, _shown(text), rest, None, options, KINDS, listens=waits)


def _webcam(number: int, path: str) -> Source:
    if not Path(path).exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*"))))
        raise UsageError(f"there is no {path}; there {f'are: {there}' if there else 'is no webcam at /dev/video*'}")
    # the kernel's stamps, which count from its start, as those of the clock on the wall
    return Source(number, path, path, "v4l2", {"timestamps": "abs"}, (IMAGE,), device=True)


def _check_host(text: str, url: str) -> None:
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port
    except ValueError as error:
        raise UsageError(f"{_shown(text)} is no address: {error}") from None
    if not host:
        if port is None:
            raise UsageError(f"{_shown(text)} names no host")
        return
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:  # all else may pass: the resolver does not answer yet
            raise UsageError(f"{_shown(text)}: there is no host {host}") from None


def _shown(text: str) -> str:
    return PASSWORD.sub(r"\1***", text.partition("?")[0])


# sensors


def sensors(
    sources: Sequence[Source], texts: Sequence[str], pairs: Sequence[str], known: Sensors
) -> list[dict[int, Sensor]]:
    """For each source: kind -> the sensor that it is.

    A source that no pair names is what it can be of the sensors that records without a name belong to; a pair sends of
    its source only what pairs name.

    Args:
        texts: The sources as they were given.
        pairs: ``SOURCE=SENSOR``, where SOURCE is as given or its number.

    Raises:
        UsageError: A pair names no source or sensor, or two sources would be one sensor.
    """
    found: list[dict[int, Sensor]] = [{} for _ in sources]
    for pair in pairs:
        of, _, to = pair.rpartition("=")
        if not of or not to:
            raise UsageError(f"--as takes SOURCE=SENSOR, not {_shown(pair)!r}")
        if to not in known.numbers:
            raise UsageError(
                f"--as {_shown(pair)}: there is no sensor {to}, only {', '.join(known.names)}; declare it: "
                f"STREAMER_SENSORS__{to.upper()}__KIND=image (docs/sensors.md)"
            )
        numbers = [place for place, text in enumerate(texts) if of in (text, str(place + 1))]
        if len(numbers) != 1:
            raise UsageError(f"--as {_shown(pair)}: {_shown(of)} is {'several' if numbers else 'none'} of the sources")
        sensor, mine = known.all[known.numbers[to]], found[numbers[0]]
        if sensor.row not in sources[numbers[0]].kinds:
            raise UsageError(
                f"--as {_shown(pair)}: {to} is a sensor of kind {KIND_NAMES[sensor.row]}, which it has not"
            )
        if sensor.row in mine:
            raise UsageError(f"--as {_shown(pair)}: it is {mine[sensor.row].name} already")
        mine[sensor.row] = sensor
    for source, mine in zip(sources, found, strict=True):
        if not mine:
            unnamed = {row: known.unnamed(row) for row in source.kinds}
            mine |= {row: known.all[number] for row, number in unnamed.items() if number is not None}
        if not mine:
            raise UsageError(
                f"{source.name}: which sensor is it? --as {source.number}=SENSOR, of {', '.join(known.names)}"
            )
    _refuse_shared(sources, found)
    return found


def _refuse_shared(sources: Sequence[Source], found: Sequence[Mapping[int, Sensor]]) -> None:
    owners: dict[Sensor, Source] = {}
    for source, mine in zip(sources, found, strict=True):
        for sensor in mine.values():
            if sensor in owners:
                raise UsageError(
                    f"sources {owners[sensor].number} and {source.number} would both be sensor {sensor.name}; tell "
                    f"them apart: --as {source.number}=SENSOR (docs/sensors.md)"
                )
            owners[sensor] = source
