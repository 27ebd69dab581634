"""What the benchmarks do with what they measured; no benchmark is run."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import rig
from bench.rig import Figure, Report, Spread, host, report
from streamer.errors import Stop


def figure(*values: float, better: str = "lower", unit: str = "", aim: float | None = None) -> Figure:
    return Figure("cost", Spread.of(values), unit, better, aim)  # type: ignore[arg-type]


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.25, 1.75, 2)


def test_ratios_are_taken_round_by_round() -> None:
    # a machine that was half as fast in the second round changes nothing
    assert rig.ratios([1.1, 2.2, 1.1], [1.0, 2.0, 1.0]) == Spread(1.1, 1.1, 1.1, 3)


def test_a_ratio_is_worse_only_beyond_the_wider_of_the_two_spreads() -> None:
    before = Spread(1.0, 0.95, 1.05, 5)
    assert rig.regression(figure(1.09, 1.09, 1.09), before) is None
    assert "worse by more than the spread of 0.1" in str(rig.regression(figure(1.11, 1.11, 1.11), before))
    assert rig.regression(figure(0.9, 1.15, 1.4), before) is None  # its own quartiles lie 0.2 apart
    assert rig.regression(figure(0.5), before) is None
    assert rig.regression(figure(0.5, better="higher"), before) is not None


def test_only_ratios_are_compared_with_the_history() -> None:
    before = {"figures": {"cost": {"spread": {"median": 1.0, "low": 1.0, "high": 1.0, "count": 5}}}}
    assert rig.regressions(Report("some", [figure(2.0)]), before)
    assert not rig.regressions(Report("some", [figure(2.0, unit="ms")]), before)
    assert not rig.regressions(Report("some", [figure(2.0)]), None)


def test_a_table_says_which_aim_was_missed() -> None:
    rows = rig.table([figure(2.0, unit="ms"), figure(1.0, 2.0, aim=1.6), figure(0.8, better="higher", aim=0.9)])
    assert rows.splitlines()[2:] == [
        "| cost | 2 ms |  |",
        "| cost | 1.5 (1.25–1.75) | ≤ 1.6 |",
        "| cost | 0.8 | ≥ 0.9, missed |",
    ]


def test_a_page_keeps_everything_outside_the_markers() -> None:
    page = "above\n<!-- one: written by the script -->\nold\n<!-- one: end -->\nbelow\n"
    written = rig.between(page, "one", "new")
    assert written == page.replace("old", "new")
    with pytest.raises(Stop, match="no markers"):
        rig.between(page, "two", "new")


def test_what_was_measured_on_a_device_has_a_page_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "DEVICE_PAGE", tmp_path / "benchmarks-cuda.md")
    monkeypatch.setattr(report, "HISTORY", tmp_path / "history.jsonl")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    for name, value in (("one", 1.0), ("two", 2.0), ("one", 3.0)):
        options = argparse.Namespace(device="cuda", quick=False, record=True, out=tmp_path)
        rig.finish(Report(name, [figure(value)]), options)
    page = report.DEVICE_PAGE.read_text()
    assert page.startswith("# Benchmarks on CUDA\n")
    assert "GPU cuda, " in page
    assert [line for line in page.splitlines() if line.startswith(("## ", "| cost"))] == [
        "## one",
        "| cost | 3 |  |",
        "## two",
        "| cost | 2 |  |",
    ]
    assert not report.PAGE.exists()


def test_a_device_that_is_not_here_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rig.parse(rig.parser(None), ["--device", "cuda:99"])
    assert "--device: PyTorch finds no cuda:99 here" in capsys.readouterr().err


def test_utilization_is_the_mean_of_what_nvml_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = itertools.cycle((20, 80))
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUtilizationRates=lambda handle: {"GPU-7": SimpleNamespace(gpu=next(said))}[handle],
    )
    monkeypatch.setattr(host, "pynvml", nvml)
    monkeypatch.setattr(host, "UTILIZATION_EVERY_S", 0.001)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="7"))
    with rig.Utilization("cuda") as busy:
        time.sleep(0.1)
    assert busy.mean == pytest.approx(0.5, abs=0.1)
    with rig.Utilization("cpu") as busy:
        pass
    assert busy.mean is None
