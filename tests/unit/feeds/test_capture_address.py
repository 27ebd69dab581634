"""What a source is called, which sensor it is, and what is refused in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE
from streamer.feeds.capture import address
from streamer.settings import Settings

DECLARED = Settings(sensors={"camera_rear": {"kind": "image"}, "cabin_mic": {"kind": "audio"}}).sensor_set
DEFAULT = Settings().sensor_set
CAMERA, OTHER = "rtsp://127.0.0.1/a", "rtsp://127.0.0.1/b"


@pytest.mark.parametrize(
    ("text", "url", "options"),
    [
        ("rtsp://127.0.0.1/a?x=1", "rtsp://127.0.0.1/a?x=1", {"rtsp_transport": "tcp"}),
        ("udp+rtsp://127.0.0.1/a", "rtsp://127.0.0.1/a", {"rtsp_transport": "udp", "buffer_size": str(4 << 20)}),
        (
            "listen+rtsp://0.0.0.0:8554/a",
            "rtsp://0.0.0.0:8554/a",
            {"rtsp_flags": "listen", "listen_timeout": "86400"},
        ),
        ("listen+rtmp://0.0.0.0:1935/live/a", "rtmp://0.0.0.0:1935/live/a", {"listen": "1"}),
        ("http://127.0.0.1/live.m3u8", "http://127.0.0.1/live.m3u8", {}),
        ("udp://:5000", "udp://:5000", {}),
    ],
)
def test_an_address_becomes_what_ffmpeg_is_told(text: str, url: str, options: dict[str, str]) -> None:
    source = address.parse(1, text)
    assert (source.url, source.form, source.options, source.kinds) == (url, None, options, (IMAGE, AUDIO))
    assert source.listens == text.startswith(("listen+", "udp://"))


def test_a_microphone_of_this_machine_is_read_by_alsa_and_its_clock_is_ours() -> None:
    source = address.parse(1, "alsa:hw:1,0")
    assert (source.url, source.form, source.kinds, source.device) == ("hw:1,0", "alsa", (AUDIO,), True)


def test_a_webcam_is_read_by_v4l2_with_times_of_the_day(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    source = address.parse(1, f"v4l2:{tmp_path}/video0")
    assert (source.form, source.kinds, source.device) == ("v4l2", (IMAGE,), True)
    assert source.options == {"timestamps": "abs"}


def test_no_name_that_is_shown_has_the_password() -> None:
    assert address.parse(1, "rtsp://me:se@cret@127.0.0.1/a?token=x").name == "rtsp://me:***@127.0.0.1/a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("camera", "is no source that can be captured; these can: rtsp://"),
        ("ftp://127.0.0.1/a", "is no source that can be captured"),
        ("rtsp://", "names no host"),
        ("rtsp://127.0.0.1:port/a", "is no address"),
        ("listen+http://127.0.0.1/a", "listen\\+ is for rtsp:// and rtmp://"),
        ("udp+rtmp://127.0.0.1/a", "udp\\+ is for rtsp://"),
        ("/dev/video99", "there is no /dev/video99; there "),
        (__file__, "`streamer replay .*` sends recordings"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        address.parse(1, text)
    assert "\n" not in str(refused.value)


def test_a_host_that_does_not_exist_is_refused_and_one_that_cannot_be_looked_up_now_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(code, "reason")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    code = socket.EAI_NONAME
    with pytest.raises(UsageError, match=r"there is no host camera\.invalid"):
        address.parse(1, "rtsp://camera.invalid/a")
    code = socket.EAI_AGAIN
    assert address.parse(1, "rtsp://camera.invalid/a").url == "rtsp://camera.invalid/a"


# ---- sensors


def named(texts: list[str], *pairs: str, known: object = DECLARED) -> list[dict[int, str]]:
    sources = [address.parse(number, text) for number, text in enumerate(texts, 1)]
    found = address.sensors(sources, texts, pairs, known)  # type: ignore[arg-type]
    return [{row: sensor.name for row, sensor in mine.items()} for mine in found]


def test_one_source_is_the_sensors_that_are_called_like_their_kinds() -> None:
    assert named([CAMERA], known=DEFAULT) == [{IMAGE: "image", AUDIO: "audio"}]


def test_a_camera_and_a_microphone_need_no_names(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    assert named([f"v4l2:{tmp_path}/video0", "alsa:default"]) == [{IMAGE: "image"}, {AUDIO: "audio"}]


def test_a_source_that_is_named_sends_what_is_named_alone() -> None:
    pairs = (f"{OTHER}=camera_rear", "2=cabin_mic", "1=image")
    assert named([CAMERA, OTHER], *pairs) == [{IMAGE: "image"}, {IMAGE: "camera_rear", AUDIO: "cabin_mic"}]


@pytest.mark.parametrize(
    ("texts", "pairs", "reason"),
    [
        ([CAMERA, OTHER], [], "sources 1 and 2 would both be sensor image; tell them apart: --as 2=SENSOR"),
        ([CAMERA, OTHER], ["1=camera_rear", "2=camera_rear"], "would both be sensor camera_rear"),
        ([CAMERA], ["1=camera_left"], "there is no sensor camera_left, only image, camera_rear, .*declare it"),
        ([CAMERA], ["3=image"], "3 is none of the sources"),
        ([CAMERA, CAMERA], [f"{CAMERA}=image"], "is several of the sources"),
        ([CAMERA], ["image"], "--as takes SOURCE=SENSOR"),
        ([CAMERA], ["1=text"], "text is a sensor of kind text, which it has not"),
        (["alsa:default"], ["1=image"], "image is a sensor of kind image, which it has not"),
        ([CAMERA], ["1=image", "1=camera_rear"], "it is image already"),
    ],
)
def test_wrong_names_are_refused_in_one_line(texts: list[str], pairs: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        named(texts, *pairs)
    assert "\n" not in str(refused.value)
