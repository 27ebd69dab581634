#!/usr/bin/env bash
# Chromium 156, Playwright 1.65.0: a position that a test sets (Playwright's set_geolocation, which is
# Emulation.setGeolocationOverride of the DevTools protocol) has the time at which it was set as its `timestamp`, however
# late a page asks, and although `maximumAge: 0` allows none from a cache. So a page that sends positions with their times
# sends old ones in such a test, unless the position is set again.
#
# Needs a Chromium on PATH. Seen with Chromium 156.0.8078.114:
#   asked 3.0 s after it was set: position of 3.0 s ago
set -euo pipefail
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check playwright==1.65.0
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - "$chromium" <<'PYTHON'
import http.server
import sys
import threading
import time

from playwright.sync_api import sync_playwright

ASK = """() => new Promise((resolve, reject) => navigator.geolocation.getCurrentPosition(
  position => resolve([position.timestamp, Date.now()]), error => reject(error.message), {maximumAge: 0}))"""
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox"])
    print("Chromium", browser.version)
    context = browser.new_context(permissions=["geolocation"])
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    context.set_geolocation({"latitude": 52.5, "longitude": 13.4})
    set_s = time.time()
    time.sleep(3)
    timestamp_ms, now_ms = page.evaluate(ASK)
    ago_s, since_s = (now_ms - timestamp_ms) / 1000, time.time() - set_s
    print(f"asked {since_s:.1f} s after it was set: position of {ago_s:.1f} s ago")
    browser.close()
assert abs(ago_s - since_s) < 1 < ago_s, "the position has another time now"
print("as described")
PYTHON
