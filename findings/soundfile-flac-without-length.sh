#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): a FLAC stream whose total number of samples is 0, which RFC 9639 (section 8.2)
# defines as unknown and every encoder that writes to a pipe leaves there, cannot be read to its end: read() asks for
# 2^63-1 samples, and reading in blocks fails at the last one, after it was decoded. What helps: a subclass whose
# seekable() is False; then reads end where the samples end.
#
# Seen on Python 3.11:
#   frames: 9223372036854775807
#   read(): ValueError: array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size.
#   blocks of 4096: LibsndfileError after 45056 of 48000 samples
#   blocks of 4096, not seekable: 48000 of 48000 samples
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
samples = (np.sin(np.arange(48_000) / 6) * 9000).astype(np.int16)
file = io.BytesIO()
soundfile.write(file, samples, 16_000, format="FLAC")
content = bytearray(file.getvalue())
bits = int.from_bytes(content[18:26], "big") >> 36 << 36  # STREAMINFO: the last 36 of these bits are the total
content[18:26] = bits.to_bytes(8, "big")


class Unseekable(soundfile.SoundFile):
    def seekable(self):
        return False


def blocks(kind):
    found = []
    with kind(io.BytesIO(content)) as opened:
        while True:
            try:
                block = opened.read(4096, dtype="int16")
            except soundfile.LibsndfileError:
                return found, True
            if not len(block):
                return found, False
            found.append(block)


print("frames:", soundfile.info(io.BytesIO(content)).frames)
assert soundfile.info(io.BytesIO(content)).frames == 2**63 - 1
try:
    soundfile.read(io.BytesIO(content))
except ValueError as error:
    print("read(): ValueError:", error)
else:
    raise AssertionError("read() works now")
found, failed = blocks(soundfile.SoundFile)
print("blocks of 4096: LibsndfileError after", sum(map(len, found)), "of 48000 samples")
assert failed and sum(map(len, found)) == 45_056
found, failed = blocks(Unseekable)
print("blocks of 4096, not seekable:", sum(map(len, found)), "of 48000 samples")
assert not failed and np.array_equal(np.concatenate(found), samples)
print("as described")
PYTHON
