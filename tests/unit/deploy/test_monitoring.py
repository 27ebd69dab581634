"""Alerts and dashboards ask for metrics that workers have, and each alert fires when it should."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from streamer.describe.metrics import Metrics as DescribeMetrics
from streamer.errors import Reason
from streamer.events import KIND_NAMES, ClosedBy
from streamer.feeds.capture.metrics import DROPS, CaptureMetrics
from streamer.gateway.metrics import GatewayMetrics
from streamer.observe.metrics import Metrics
from streamer.observe.tally import Tally
from streamer.rules.metrics import Metrics as RulesMetrics
from streamer.sinks.metrics import Metrics as SinkMetrics
from streamer.speak.metrics import Metrics as SpeakMetrics
from streamer.transcribe.metrics import TranscribeMetrics

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "k8s/components/monitoring"
RULES = MONITORING / "rules.yaml"
RUNBOOK = ROOT / "docs/runbook.md"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))

Json = dict[str, Any]

GROUPS: list[Json] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
ALERTS: list[Json] = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
NAMES = [alert["alert"] for alert in ALERTS]
RECORDED = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}

TARGET_LABELS = {"job", "instance", "namespace"}  # that a scrape adds
# Values of labels whose code has no enumeration; a test looks for each in the code.
OUTCOMES = {"joined", "late", "dead", "control", "replayed", "whole", "bare", "new", "repeated", "early"} | {
    "again",
    "reused",
    "dropped",
    "failed",
    "unavailable",
    "refused",
    "quota",
}
STATUSES = {"ok", "partial", "failed", "empty", "duplicate"}
STAGES = {"merge", "align", "emit", "handover", "batch", "decode", "infer", "publish", "total"}
PLACES = {"merge", "open", "inflight"}
VALUES = {
    "outcome": OUTCOMES,
    "status": STATUSES,
    "stage": STAGES,
    "place": PLACES,
    "service": {"kafka", "redis"},
    "sensor": set(KIND_NAMES),
    "closed_by": {str(reason) for reason in ClosedBy},
    "reason": {str(reason) for reason in Reason} | set(DROPS),
    "job": {"streamer"},
}

PROGRAMS = (
    Metrics,
    CaptureMetrics,
    DescribeMetrics,
    GatewayMetrics,
    RulesMetrics,
    SinkMetrics,
    SpeakMetrics,
    TranscribeMetrics,
)


@cache
def exported() -> dict[str, set[str]]:
    """Names of the series of each program, as Prometheus sees them, with their labels."""
    found: dict[str, set[str]] = {}
    for metric in [m for program in PROGRAMS for m in vars(program(CollectorRegistry())).values()]:
        if isinstance(metric, Tally):
            found[f"{metric.name}_bucket"] = {metric.label, "le"}
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = list(metric.collect())
        labels = set(metric._labelnames)
        by_type: dict[str, list[tuple[str, set[str]]]] = {
            "counter": [("_total", set())],
            "gauge": [("", set())],
            "info": [("_info", {"name", "version"})],
            "histogram": [("_bucket", {"le"}), ("_sum", set()), ("_count", set())],
        }
        for suffix, more in by_type[family.type]:
            found[family.name + suffix] = labels | more
    for family in REGISTRY.collect():  # what prometheus_client tells of the process, in the registry of the worker
        found |= {sample.name: set(sample.labels) for sample in family.samples if sample.name.startswith("process_")}
    # DeviceCollector's, where there is an NVIDIA device
    for name in ("utilization_ratio", "memory_used_bytes", "memory_total_bytes"):
        found[f"streamer_device_{name}"] = {"device"}
    return found | {"up": set()} | {name: set() for name in RECORDED}


def dashboards() -> dict[str, Json]:
    return {path.name: json.loads(path.read_text("utf-8")) for path in DASHBOARDS}


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    yield from RECORDED.items()
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{name}: {annotation['name']}", annotation["expr"]


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian's package prometheus has it)")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


# metrics


def test_every_metric_that_is_asked_for_exists() -> None:
    assert {"streamer_events_total", "streamer_event_bytes_total", "streamer_model_info"} <= exported().keys()
    asked = {
        (where, name)
        for where, expression in expressions()
        for name in re.findall(r"\b((?:streamer|process)[_:][\w:]+)", re.sub(r'"[^"]*"', '""', expression))
    }
    assert len(asked) > 40
    assert {(where, name) for where, name in asked if name not in exported()} == set()


def test_selectors_use_labels_that_the_metric_has_and_values_that_occur() -> None:
    seen = 0
    for where, expression in expressions():
        for name, inside in re.findall(r"\b((?:streamer|process)_\w+|up)\{([^}]*)\}", expression):
            for label, _, values in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside):
                assert label in exported()[name] | TARGET_LABELS, f"{where}: {name} has no label {label}"
                if label in VALUES:
                    seen += 1
                    assert set(values.split("|")) <= VALUES[label], f"{where}: {label} is never {values}"
    assert seen > 15


def test_groupings_use_labels_that_the_metric_has() -> None:
    seen = 0
    for where, expression in expressions():
        for labels, inside in re.findall(r"\bby \(([^)]*)\)\s*\(([^()]*(?:\([^()]*\))?)", expression):
            (name, *_) = re.findall(r"\b(?:streamer|process)_\w+", inside)
            seen += 1
            assert {x.strip() for x in labels.split(",")} <= exported()[name] | TARGET_LABELS, where
    assert seen > 30


def test_values_of_labels_are_in_the_code() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "streamer").rglob("*.py"))
    assert {value for value in OUTCOMES | STAGES | PLACES | VALUES["service"] if f'"{value}"' not in code} == set()
    said = Metrics(CollectorRegistry()).published._documentation
    assert set(re.findall(r"\b(\w+)(?=[,;:]|$)", said.partition(": ")[2].partition(": was")[0])) == STATUSES


# alerts


def test_promtool_accepts_the_rules(promtool: str) -> None:
    checked = run(promtool, "check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_and_keep_silent_as_their_tests_say(promtool: str) -> None:
    tested = run(promtool, "test", "rules", MONITORING / "rules.test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_made_to_fire_and_held_to_silence() -> None:
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text("utf-8"))["tests"]
    asked = [(test["name"], case) for test in tests for case in test["promql_expr_test"] if "ALERTS" in case["expr"]]
    fired = {
        name
        for _, case in asked
        for s in case.get("exp_samples", [])
        for name in re.findall('name="(\\w+)"', s["labels"])
    }
    assert fired == set(NAMES)
    # A case that names no sample allows none: every test begins with one, over the alerts of all names.
    for test in tests:
        first = test["promql_expr_test"][0]
        assert "exp_samples" not in first
        assert 'ALERTS{alertstate="firing"' in first["expr"]
    (healthy, *_) = tests
    assert {case["expr"] for case in healthy["promql_expr_test"] if case["eval_time"] == "60m"} > {
        'count by (alertname) (ALERTS{alertstate="firing"})'
    }


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never fires", "always fires"])
def test_promtool_notices_an_alert_that(expression: str, promtool: str, tmp_path: Path) -> None:
    text = RULES.read_text("utf-8")
    alert = next(alert for alert in ALERTS if alert["alert"] == "StreamerNotReady")
    broken = text.replace(f"expr: {alert['expr']}\n", f"expr: {expression}\n")
    assert broken != text
    (tmp_path / RULES.name).write_text(broken, "utf-8")
    shutil.copy(MONITORING / "rules.test.yaml", tmp_path)
    assert run(promtool, "check", "rules", tmp_path / RULES.name).returncode == 0
    assert run(promtool, "test", "rules", tmp_path / "rules.test.yaml").returncode != 0


def test_the_object_for_the_operator_is_made_from_the_rules() -> None:
    spec = importlib.util.spec_from_file_location("render", MONITORING / "render.py")
    assert spec is not None
    assert spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    path = MONITORING / "prometheusrule.yaml"
    assert path.read_text("utf-8") == render.rendered(), "run python3 k8s/components/monitoring/render.py"
    assert yaml.safe_load(path.read_text("utf-8"))["spec"] == {"groups": GROUPS}


def test_each_alert_says_what_is_wrong_and_where_the_runbook_goes_on() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 14
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else() -> None:
    sections = re.split(r"^## ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == NAMES
    for section in sections:
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Means", "See", "Do"]
        for link in re.findall(r"\(#(\w+)\)", section):
            assert link in {name.lower() for name in NAMES}


def test_the_runbook_knows_every_reason_of_a_dead_letter() -> None:
    table = "".join(re.findall(r"^\| (`.*) \|.*\|$", RUNBOOK.read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", table)) >= {str(reason) for reason in Reason}


# dashboards


def test_there_are_two_dashboards_which_grafana_can_tell_apart() -> None:
    assert set(dashboards()) == {"health.json", "feeds.json"}
    assert len({dashboard["uid"] for dashboard in dashboards().values()}) == 2
    assert len({dashboard["title"] for dashboard in dashboards().values()}) == 2


@pytest.mark.parametrize("name", [path.name for path in DASHBOARDS])
def test_a_dashboard_is_sound(name: str) -> None:
    dashboard = dashboards()[name]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "namespace"}
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            (metric, *_) = re.findall(r"\b(?:streamer|process)_\w+", target["expr"])
            assert legend <= exported()[metric] | TARGET_LABELS


def test_every_expression_of_a_dashboard_is_promql(promtool: str, tmp_path: Path) -> None:
    def plain(expression: str) -> str:
        return expression.replace("$namespace", ".*").replace("$__rate_interval", "1m")

    rules = [
        {"record": f"panel:{number}", "expr": plain(expression)} for number, (_, expression) in enumerate(expressions())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    checked = run(promtool, "check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


def test_every_metric_is_on_a_dashboard() -> None:
    shown = " ".join(
        target["expr"]
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    )
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("streamer_")}
    assert {family for family in families if family not in shown} == set()


# where they are read


def test_prometheus_of_compose_takes_the_same_rules_and_the_same_job(promtool: str, tmp_path: Path) -> None:
    text = (ROOT / "ops/prometheus.yml").read_text("utf-8")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    config = yaml.safe_load(text)
    (inside,) = config["rule_files"]
    assert f"./{RULES.relative_to(ROOT)}:{inside}:ro" in services["prometheus"]["volumes"]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "streamer"
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) <= set(services)
    (tmp_path / "prometheus.yml").write_text(text.replace(inside, str(RULES)), "utf-8")
    checked = run(promtool, "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pods_are_scraped_under_the_job_that_the_alerts_know() -> None:
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text("utf-8"))["spec"]
    deployment = yaml.safe_load((ROOT / "k8s/worker/deployment.yaml").read_text("utf-8"))
    assert deployment["spec"]["template"]["metadata"]["labels"][monitor["jobLabel"]] == "streamer"
    assert {
        target for relabel in monitor["podMetricsEndpoints"][0]["relabelings"] for target in [relabel["targetLabel"]]
    } == {"instance"}


def test_grafana_of_compose_finds_the_dashboards_and_prometheus() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    (provider,) = yaml.safe_load((ROOT / "ops/grafana/dashboards/streamer.yml").read_text("utf-8"))["providers"]
    folder = provider["options"]["path"]
    volumes = services["grafana"]["volumes"]
    assert f"./{(MONITORING / 'dashboards').relative_to(ROOT)}:{folder}:ro" in volumes
    assert "./ops/grafana:/etc/grafana/provisioning:ro" in volumes
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/health.json"
    (source,) = yaml.safe_load((ROOT / "ops/grafana/datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"][0].endswith(":9090")
