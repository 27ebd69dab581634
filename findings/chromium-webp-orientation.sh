#!/usr/bin/env bash
# Chromium 156 turns JPEG and PNG pictures by their EXIF orientation (CSS: image-orientation, from-image by default), and
# leaves WebP as it is stored, although its container has a chunk for the same note (RFC 9649, section 2.7.1.5).
#
# Needs a Chromium on PATH. Seen with Chromium 156.0.8078.108, pictures stored as 96 × 64 with orientation 6:
#   JPEG: shown as 64 × 96
#   PNG: shown as 64 × 96
#   WEBP: shown as 96 × 64
set -euo pipefail
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check playwright==1.65.0 pillow==13.0.0
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - "$chromium" <<'PYTHON'
import base64
import io
import sys

from PIL import Image
from playwright.sync_api import sync_playwright

note = Image.Exif()
note[0x0112] = 6
shown = {}
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox"])
    print("Chromium", browser.version)
    page = browser.new_page()
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (96, 64)).save(file, kind, exif=note)
        assert Image.open(io.BytesIO(file.getvalue())).getexif()[0x0112] == 6
        url = f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
        shown[kind] = page.evaluate(
            "async url => { const image = new Image(); image.src = url; await image.decode();"
            " return [image.naturalWidth, image.naturalHeight]; }",
            url,
        )
        print(f"{kind}: shown as {shown[kind][0]} × {shown[kind][1]}")
    browser.close()
assert shown == {"JPEG": [64, 96], "PNG": [64, 96], "WEBP": [96, 64]}, "Chromium has changed"
print("as described")
PYTHON
