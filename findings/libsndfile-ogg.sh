#!/usr/bin/env bash
# libsndfile 1.2.2 (in soundfile 0.14.0) on Ogg files:
# 1. After a seek into the last page of a Vorbis stream the samples are those of a later place, by as much as the last
#    packet is trimmed (up to a packet); sequential reading is right.
# 2. Of two streams one behind the other (a chain: RFC 3533, section 4) only the first is read. The length is that of the
#    first, or 2^63-1 where Vorbis has more than a page, so that soundfile.read() fails.
# 3. An Opus stream without a page that is marked as the last, as a radio's listener has it who stopped, cannot be read
#    at all if the read reaches its last page, although its length is known and the same as with the mark.
#
# Seen on Python 3.11:
#   Vorbis, seek to 235200 of 240000: the samples of 235328
#   Vorbis chain: 9223372036854775807 frames; 240000 of 480000 samples
#   Opus chain: 240000 frames; 240000 of 480000 samples
#   Opus without a last page: 240000 frames; read: LibsndfileError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import soundfile

print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__)
noise = np.random.default_rng(0).integers(-9000, 9000, 240_000).astype(np.int16)


class Unseekable(soundfile.SoundFile):  # its reads end where the samples end
    def seekable(self):
        return False


def ogg(subtype):
    file = io.BytesIO()
    soundfile.write(file, noise, 16_000, format="OGG", subtype=subtype)
    return file.getvalue()


def written(content, serial, mark=True):
    """With another serial number, and without the flag of the last page if not mark (RFC 3533, section 6)."""
    found, at = b"", 0
    while at < len(content):
        count = content[at + 26]
        end = at + 27 + count + sum(content[at + 27 : at + 27 + count])
        page = bytearray(content[at:end])
        if not mark:
            page[5] &= ~4
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        value = 0
        for byte in page:
            value ^= byte << 24
            for _ in range(8):
                value = value << 1 ^ (0x104C11DB7 if value & 0x80000000 else 0)
        page[22:26] = value.to_bytes(4, "little")
        found, at = found + bytes(page), end
    return found


vorbis = ogg("VORBIS")
whole, _ = soundfile.read(io.BytesIO(vorbis))
with soundfile.SoundFile(io.BytesIO(vorbis)) as file:
    file.seek(235_200)
    part = file.read(1000)
places = [at for at in range(230_000, 239_000) if np.allclose(whole[at : at + 1000], part, atol=1e-6)]
print("Vorbis, seek to 235200 of 240000: the samples of", *places)
assert places == [235_328]
for subtype in ("VORBIS", "OPUS"):
    chain = written(ogg(subtype), 1) + written(ogg(subtype), 2)
    heard = 0
    with Unseekable(io.BytesIO(chain)) as file:
        frames = file.frames
        while len(block := file.read(4096)):
            heard += len(block)
    print(f"{subtype.title()} chain: {frames} frames; {heard} of 480000 samples")
    assert heard == 240_000
opus = written(ogg("OPUS"), 1, mark=False)
print("Opus without a last page:", soundfile.info(io.BytesIO(opus)).frames, "frames; read: ", end="")
assert soundfile.info(io.BytesIO(opus)).frames == 240_000
try:
    soundfile.read(io.BytesIO(opus))
except soundfile.LibsndfileError as error:
    print(type(error).__name__)
else:
    raise AssertionError("it is read now")
print("as described")
PYTHON
