"""What the page says, asked of its own script in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from streamer.dashboard.server import _content

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def said(tmp_path: Path, call: str) -> Any:
    (tmp_path / "wording.mjs").write_bytes(_content("page/wording.js"))
    script = f'import * as page from "./wording.mjs"; console.log(JSON.stringify(page.{call}));'
    (tmp_path / "ask.mjs").write_text(script)
    return json.loads(subprocess.run(["node", "ask.mjs"], cwd=tmp_path, capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("openAlarms({ alarm: 0, warning: 0, notice: 0 }, 0)", "none open"),
        ("openAlarms({ alarm: 1, warning: 0, notice: 0 }, 1)", "1 alarm open"),
        ("openAlarms({ alarm: 1, warning: 0, notice: 2 }, 3)", "1 alarm, 2 notices open"),
        (
            "openAlarms({ alarm: 300, warning: 1, notice: 0 }, 200)",
            "300 alarms, 1 warning open; the first 200 are shown",
        ),
        ('closedBy({ closed_by: "complete", status: "ok" })', "complete"),
        ('closedBy({ closed_by: "deadline", status: "partial" })', "deadline, data may be missing"),
        ('closedBy({ closed_by: "open", status: "ok" })', "still open"),
        ("unshown(200)", "This picture cannot be decoded"),
        ("unshown(404)", "Kafka no longer has this frame"),
        ("unshown(503)", "This frame cannot be read now"),
        ("unshown(undefined)", "This frame cannot be read now"),
    ],
)
def test_the_page_says_what_is(call: str, text: str, tmp_path: Path) -> None:
    assert said(tmp_path, call) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Promise.resolve({ status: 200 })", "This picture cannot be decoded"),
        ("Promise.resolve({ status: 404 })", "Kafka no longer has this frame"),
        ('Promise.reject(new TypeError("no connection"))', "This frame cannot be read now"),
    ],
)
def test_a_picture_that_does_not_load_is_asked_for_again_to_say_why(answer: str, text: str, tmp_path: Path) -> None:
    for name in ("dom", "zone", "wording"):
        (tmp_path / f"{name}.js").write_bytes(_content(f"page/{name}.js"))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "ask.mjs").write_text(
        "globalThis.localStorage = { getItem: () => null };\n"
        "globalThis.document = { getElementById: () => ({ addEventListener: () => null }) };\n"
        f"globalThis.fetch = () => {answer};\n"
        'const { whyUnshown } = await import("./dom.js");\n'
        'console.log(await whyUnshown("/api/frame?session=s"));\n'
    )
    told = subprocess.run(["node", "ask.mjs"], cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert told == f"{text}\n"
