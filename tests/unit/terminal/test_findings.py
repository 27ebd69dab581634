from __future__ import annotations

from streamer.operate.findings import Finding, Status
from streamer.terminal import findings
from tests.terminals import lines


def test_a_finding_fits_80_columns_and_its_remedy_begins_a_line() -> None:
    shown = lines(findings.line(Finding("sensors", Status.FAIL, "word " * 40 + "found", "word " * 20 + "repaired")))
    assert max(map(len, shown)) <= 80
    assert shown[0].startswith("FAIL sensors word")
    (remedy,) = (number for number, line in enumerate(shown) if line.startswith(" " * 11 + "→ word"))
    assert shown[remedy - 1].strip().endswith("found")
    assert shown[-1].strip().endswith("repaired")
    assert {line[:13].strip() for line in shown[1:]} == {"", "→"}


def test_a_finding_without_a_remedy_is_one_line() -> None:
    assert lines(findings.line(Finding("disk", Status.OK, "much is free"))) == ["ok   disk    much is free"]
