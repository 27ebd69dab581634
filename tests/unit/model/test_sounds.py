"""Sound files whose header has no length or a wrong one: every sample in every window, or a reason."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.errors import BadRecord, Reason
from streamer.events import AUDIO, Event, EventType, Record
from streamer.model import payloads, soundfiles, sounds

S_US = 1_000_000
RATE = 16_000
TONE = (np.sin(np.arange(3 * RATE) / 6) * 9000).astype(np.int16)  # 3 s
NOISE = np.random.default_rng(0).integers(-9000, 9000, 15 * RATE).astype(np.int16)  # Ogg needs many pages for it


def in_file(samples: NDArray[Any], kind: str, subtype: str | None = "PCM_16", rate_hz: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def chunk(content: bytes, said_us: int = 3 * S_US, media_type: str = "audio/wav", start_us: int = 0) -> Event:
    record = Record(AUDIO, 0, 0, 0, b"s", content, ())
    return Event(record, "s", EventType.DATA, start_us, start_us + said_us, media_type)


def heard(event: Event, window_us: int = 700_000) -> tuple[NDArray[np.float32], int]:
    """The samples of all windows in 16-bit steps, one after the other, and the surplus in the last one."""
    parts, surplus_us = [], 0
    for start_us in range(event.start_us, event.end_us, window_us):
        found = payloads.audio(event, start_us, start_us + window_us)
        assert (found.rate_hz, found.first) == (RATE, 0)
        assert surplus_us == 0
        parts.append(found.samples_S * 32_768)
        surplus_us = found.surplus_us
    return np.concatenate(parts), surplus_us


def all_heard(content: bytes, samples: NDArray[Any] = TONE, within: float = 0) -> None:
    """Each window has exactly its samples, and the payload is as long as it says."""
    found, surplus_us = heard(chunk(content, len(samples) * S_US // RATE))
    assert (len(found), surplus_us) == (len(samples), 0)
    assert np.abs(found - samples).max() <= within


# WAV


def sized(content: bytes, riff: int, data: int) -> bytes:
    """The WAV with other lengths in its header."""
    at = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", riff) + content[8:at] + struct.pack("<I", data) + content[at + 4 :]


WAV = in_file(TONE, "WAV")
RF64 = in_file(TONE, "RF64")
FORMAT, DATA = WAV[12:36], WAV[36:]
DS64 = RF64.index(b"ds64") + 8
LIST = b"LIST\x04\0\0\0INFO"


@pytest.mark.parametrize("riff", [0, 36, len(WAV) - 8, 0xFFFFFFFF])
@pytest.mark.parametrize("data", [0, 100, len(WAV) - 44, 0x7FFFF000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_wav_is_heard_whole_whatever_lengths_its_header_has(kind: str, riff: int, data: int) -> None:
    all_heard(sized(in_file(TONE, kind), riff, data))


@pytest.mark.parametrize(
    "content",
    [
        RF64,
        RF64[:DS64] + bytes(24) + RF64[DS64 + 24 :],
        RF64[:DS64] + b"\xff" * 24 + RF64[DS64 + 24 :],
        b"BW64" + RF64[4:DS64] + bytes(24) + RF64[DS64 + 24 :],
        sized(RF64, 0, 0),
    ],
    ids=["whole", "empty ds64", "ds64 of ones", "BW64", "no lengths"],
)
def test_an_rf64_is_heard_whole_whatever_its_ds64_has(content: bytes) -> None:
    all_heard(content)


ODD = b"junk\x03\0\0\0abc"


@pytest.mark.parametrize(
    "content",
    [
        WAV[:12] + LIST + FORMAT + DATA,
        WAV[:12] + FORMAT + ODD + b"\0" + DATA,
        WAV[:12] + FORMAT + ODD + DATA,
        sized(WAV[:12] + FORMAT + ODD + b"\0" + LIST + DATA, 0, 0),
        WAV + LIST,
        sized(WAV[:-1], 0, 2**32 - 1) + WAV[-1:],
        WAV + bytes(1001),
    ],
    ids=["first", "odd", "odd, not padded", "odd, no lengths", "behind", "streamed", "zeros behind"],
)
def test_other_chunks_are_no_sound(content: bytes) -> None:
    all_heard(content)


@pytest.mark.parametrize(("subtype", "within"), [("PCM_U8", 256), ("PCM_24", 0), ("FLOAT", 0), ("ULAW", 300)])
def test_any_kind_of_samples_is_heard_whole_without_a_length(subtype: str, within: int) -> None:
    all_heard(sized(in_file(TONE / np.float32(32_768), "WAV", subtype), 0, 0), within=within)


def test_two_channels_are_cut_between_samples() -> None:
    content = in_file(np.stack([TONE, TONE[::-1]], axis=1), "WAV")
    all_heard(sized(content, 0, 0), (TONE.astype(int) + TONE[::-1]) / 2, within=0.01)


def test_a_wav_that_ends_early_has_its_samples_and_is_reported() -> None:
    found, surplus_us = heard(chunk(WAV[: 44 + 2 * 20_000 + 1]))
    assert np.array_equal(found, TONE[:20_000])
    assert surplus_us == -1_750_000


@pytest.mark.parametrize("content", [WAV[:44], sized(WAV[:44] + LIST, 12, 0), sized(WAV[:44], 0, 0xFFFFFFFF)])
def test_a_wav_without_any_sample_is_a_bad_payload(content: bytes) -> None:
    with pytest.raises(BadRecord, match="audio/wav does not decode: it holds no samples") as bad:
        heard(chunk(content))
    assert bad.value.reason is Reason.BAD_PAYLOAD
    assert len(heard(chunk(content, said_us=1))[0]) == 0  # says that it has none


def test_chunks_without_end_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfiles, "MAX_CHUNKS", 10)
    content = WAV[:12] + b"junk\0\0\0\0" * 20 + FORMAT + DATA
    assert soundfiles.parts(content) == [content]


# FLAC

FLAC = in_file(TONE, "FLAC")


def with_total(content: bytes, total: int) -> bytes:
    """A FLAC file whose header has another number of samples, and no MD5: RFC 9639, section 8.2."""
    bits = int.from_bytes(content[18:26]) >> 36 << 36 | total
    return content[:18] + bits.to_bytes(8) + bytes(16) + content[42:]


@pytest.mark.parametrize("total", [0, 1, 1000, len(TONE), len(TONE) + 1, 100_000, 2**36 - 1])
def test_a_flac_is_heard_whole_whatever_total_its_header_has(total: int) -> None:
    all_heard(with_total(FLAC, total))


def test_a_flac_that_ends_early_is_a_bad_payload() -> None:
    with pytest.raises(BadRecord, match="flac decoder lost sync"):
        heard(chunk(with_total(FLAC, 0)[: len(FLAC) // 2]))


def test_a_long_flac_of_unknown_length_is_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "BLOCK_VALUES", 2 * 1000)
    stereo = np.stack([TONE, -TONE // 2], axis=1)
    all_heard(with_total(in_file(stereo, "FLAC"), 0), stereo.mean(axis=1), within=0.01)


# Ogg


def pages(content: bytes) -> list[tuple[int, int]]:
    """Where the pages of an Ogg file begin and end: RFC 3533, section 6."""
    found, at = [], 0
    while at < len(content):
        assert content[at : at + 4] == b"OggS"
        count = content[at + 26]
        end = at + 27 + count + sum(content[at + 27 : at + 27 + count])
        found.append((at, end))
        at = end
    return found


def checksum(page: bytes) -> int:
    """RFC 3533: a CRC-32 bit by bit, as an oracle for the table."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


def repaged(content: bytes, number: int, at: int, new: bytes) -> bytes:
    """The file with other bytes in the header of a page."""
    begin, end = pages(content)[number]
    page = bytearray(content[begin:end])
    page[at : at + len(new)] = new
    page[22:26] = bytes(4)
    page[22:26] = checksum(bytes(page)).to_bytes(4, "little")
    return content[:begin] + page + content[end:]


def unfinished(content: bytes) -> bytes:
    """The file as a radio's listener has it who stopped: no page is marked as the last."""
    return repaged(content, -1, 5, b"\0")


OGG = {subtype: (in_file(TONE, "OGG", subtype), in_file(TONE[::-1], "OGG", subtype)) for subtype in ("VORBIS", "OPUS")}


def decoded(content: bytes) -> NDArray[np.float32]:
    """What libsndfile makes of one stream: the codecs lose something."""
    return np.asarray(soundfile.read(io.BytesIO(content), dtype="float32")[0] * 32_768, np.float32)


@pytest.mark.parametrize("subtype", OGG)
def test_windows_of_an_ogg_have_what_lies_in_them(subtype: str) -> None:
    content = in_file(NOISE, "OGG", subtype)
    found, surplus_us = heard(chunk(content, 15 * S_US), 500_000)
    assert surplus_us == 0
    assert np.abs(found - decoded(content)).max() <= 1


@pytest.mark.parametrize("subtype", OGG)
def test_a_chain_of_streams_is_heard_whole(subtype: str) -> None:
    one, other = OGG[subtype]
    whole = np.concatenate([decoded(one), decoded(other), decoded(one)])
    assert len(whole) == 3 * len(TONE)
    for chain in (one + other + one, unfinished(one) + unfinished(other) + unfinished(one)):
        all_heard(chain, whole, within=1)
    noise = in_file(NOISE, "OGG", subtype)  # of many pages
    all_heard(noise + one, np.concatenate([decoded(noise), decoded(one)]), within=1)


@pytest.mark.parametrize("subtype", OGG)
def test_a_stream_without_a_last_page_is_heard_whole(subtype: str) -> None:
    one, _ = OGG[subtype]
    all_heard(unfinished(one), decoded(one), within=1)
    noise = in_file(NOISE, "OGG", subtype)
    all_heard(unfinished(noise), decoded(noise), within=1)


@pytest.mark.parametrize("subtype", OGG)
def test_what_is_no_page_is_passed_over(subtype: str) -> None:
    content = in_file(NOISE, "OGG", subtype)
    begin, _ = pages(content)[5]
    whole = decoded(content)
    for junk in (b"\0", b"Ogg", bytes(100)):
        all_heard(content[:begin] + junk + content[begin:] + junk, whole, within=1)


@pytest.mark.parametrize("subtype", OGG)
def test_an_ogg_cut_in_a_page_has_the_samples_before_and_is_reported(subtype: str) -> None:
    content = in_file(NOISE, "OGG", subtype)
    begin, _ = pages(content)[6]
    found, surplus_us = heard(chunk(content[: begin + 100], 15 * S_US))
    assert RATE < len(found) < 15 * RATE
    assert np.abs(found - decoded(content)[: len(found)])[: len(found) - RATE // 4].max() <= 1
    assert surplus_us == pytest.approx(len(found) * S_US / RATE - 15 * S_US, abs=1)


@pytest.mark.parametrize("subtype", OGG)
def test_an_ogg_with_a_hole_is_a_bad_payload(subtype: str) -> None:
    """libsndfile would play what comes after it too early."""
    content = in_file(NOISE, "OGG", subtype)
    begin, end = pages(content)[5]
    with pytest.raises(BadRecord, match="Ogg page 6 comes where page 5 should be"):
        heard(chunk(content[:begin] + content[end:], 15 * S_US))


def test_an_ogg_of_whose_only_page_with_sound_a_part_is_missing_is_a_bad_payload() -> None:
    with pytest.raises(BadRecord, match="it holds no samples"):
        heard(chunk(OGG["VORBIS"][0][:-100]))


@pytest.mark.parametrize("granule", [-1, 0, 100, 10**7])
@pytest.mark.parametrize("subtype", OGG)
def test_a_wrong_end_granule_loses_no_sample_that_is_not_reported(subtype: str, granule: int) -> None:
    content = repaged(OGG[subtype][0], -1, 6, struct.pack("<q", granule))
    whole = decoded(OGG[subtype][0])
    try:
        found, surplus_us = heard(chunk(content))
    except BadRecord:
        assert (subtype, granule) in [("VORBIS", -1), ("VORBIS", 0)]
        return
    settled = max(0, len(found) - 400)
    assert np.abs(found[:settled] - whole[:settled]).max(initial=0) <= 1
    assert surplus_us < 0 if len(found) < len(whole) else surplus_us >= 0


def test_streams_of_two_rates_are_a_bad_payload() -> None:
    chain = OGG["VORBIS"][0] + in_file(TONE, "OGG", "VORBIS", 24_000)
    with pytest.raises(BadRecord, match="its parts have rates of 16000 and 24000 Hz"):
        heard(chunk(chain, 6 * S_US))


def test_streams_and_pages_without_end_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = OGG["OPUS"]
    monkeypatch.setattr(soundfiles, "MAX_LINKS", 1)
    with pytest.raises(BadRecord, match="more than 100000 pages or 1 streams"):
        heard(chunk(one + other + one, 9 * S_US))
    monkeypatch.setattr(soundfiles, "MAX_PAGES", 2)
    with pytest.raises(BadRecord, match="more than 2 pages"):
        heard(chunk(one))


# any


@pytest.mark.parametrize("content", [WAV, FLAC, with_total(FLAC, 0), OGG["VORBIS"][0], OGG["OPUS"][0]])
@pytest.mark.parametrize(
    ("said_us", "surplus_us"),
    [(3_000_900, 0), (2_999_100, 0), (3_100_000, -100_000), (4 * S_US, -S_US), (2 * S_US, S_US), (2_900_000, 100_000)],
)
def test_a_sound_that_is_not_as_long_as_it_says_is_reported_where_its_event_ends(
    content: bytes, said_us: int, surplus_us: int
) -> None:
    found, reported_us = heard(chunk(content, said_us))
    assert len(found) == min(len(TONE), round(said_us * RATE / S_US))
    if surplus_us > 0 and content not in (WAV, FLAC):
        assert 1000 < reported_us <= surplus_us  # it is not decoded to its end
    else:
        assert reported_us == surplus_us


def test_windows_may_begin_anywhere() -> None:
    event = chunk(with_total(FLAC, 0), start_us=123_456)
    cuts = [payloads.audio(event, at_us, at_us + 250_000) for at_us in range(0, 3_250_000, 250_000)]
    assert [cut.first for cut in cuts] == [round(0.123456 * RATE)] + [0] * 12
    lengths = [len(cut.samples_S) for cut in cuts]
    assert np.array_equal(np.concatenate([cut.samples_S for cut in cuts]) * 32_768, TONE)
    borders = [round((at_us - 123_456) * RATE / S_US) for at_us in range(250_000, 3_250_000, 250_000)]
    assert list(accumulate(lengths))[:-1] == borders


@pytest.mark.parametrize(
    ("content", "length_us"),
    [
        (WAV, 3 * S_US),
        (sized(WAV, 0, 0), 3 * S_US),
        (with_total(FLAC, 0), 3 * S_US),
        (OGG["OPUS"][0] + OGG["OPUS"][1], 6 * S_US),
        (WAV[:44], 0),
    ],
)
def test_the_length_of_a_file_is_that_of_its_samples(content: bytes, length_us: int) -> None:
    assert sounds.duration_us(content, 60 * S_US) == length_us


def test_counting_a_length_stops_above_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "BLOCK_VALUES", 1000)
    assert sounds.duration_us(WAV, S_US) == 1_000_000 + 62_500


@given(
    st.sampled_from([WAV, RF64, FLAC, *OGG["OPUS"]]), st.binary(max_size=40), st.integers(0, 400), st.integers(0, 99)
)
def test_a_damaged_file_is_heard_or_refused_and_nothing_else(content: bytes, junk: bytes, at: int, lost: int) -> None:
    damaged = chunk(content[:at] + junk + content[at + lost :])
    for start_us in range(0, 3 * S_US, S_US):
        with suppress(BadRecord):
            found = payloads.audio(damaged, start_us, start_us + S_US)
            assert found.first + len(found.samples_S) <= found.rate_hz


def test_a_real_recording_without_its_lengths_is_heard_whole(data: Path) -> None:
    path = next(iter(sorted((data / "fsdd").glob("*.wav"))))
    samples, rate_hz = soundfile.read(path, dtype="float32")
    said_us = len(samples) * S_US // rate_hz
    streamed = chunk(sized(path.read_bytes(), 0, 0), said_us)
    whole = payloads.audio(streamed, 0, said_us)
    assert (whole.rate_hz, whole.surplus_us) == (rate_hz, 0)
    assert np.array_equal(whole.samples_S, samples)
    middle_us = said_us // 2
    assert np.array_equal(
        payloads.audio(streamed, middle_us, said_us).samples_S, samples[round(middle_us * rate_hz / S_US) :]
    )
