#!/usr/bin/env python3
"""Makes prometheusrule.yaml from rules.yaml: kustomize cannot put one file's content into another object's spec."""

from pathlib import Path

HERE = Path(__file__).parent
HEAD = """\
# Made from rules.yaml by render.py; change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: streamer
  labels:
    app.kubernetes.io/name: streamer
spec:
"""


def rendered() -> str:
    """The PrometheusRule, whose spec is the rules file without its introduction."""
    text = (HERE / "rules.yaml").read_text("utf-8")
    groups = text[text.index("groups:\n") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(rendered(), "utf-8")
