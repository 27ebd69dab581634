#!/usr/bin/env bash
# cel-python 0.5.0 takes hundreds of times as long as common-expression-language 0.10.0 (CEL in Rust, with bindings) for a
# program of the Common Expression Language, with the same result. Both have compiled it and taken over the variables
# before. Of cel-python the default, InterpretedRunner, and CompiledRunner, which transpiles to Python, are measured.
#
# Seen on Python 3.11, CPU time of one evaluation: 390 µs interpreted, 78 µs transpiled, 1 µs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cel-python==0.5.0 common-expression-language==0.10.0
mkdir "$folder/work" && cd "$folder/work"
cat > measure.py <<'PYTHON'
import sys
import time
from collections.abc import Callable

WHEN = 'result.confidence > 0.8 && result.label == "person" && result.counts["car"] >= 2'
VALUES = {"result": {"confidence": 0.9, "label": "person", "counts": {"car": 3}}}


def measured(evaluate: Callable[[], object], count: int) -> None:
    assert evaluate()
    rounds = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(count):
            evaluate()
        rounds.append((time.process_time() - begun) / count)
    print(min(rounds) * 1e6)


if sys.argv[1] == "rust":
    import cel

    program, context = cel.compile(WHEN), cel.Context(variables=VALUES)
    measured(lambda: program.execute(context) is True, 20_000)
else:  # a process for each: findings/cel-python-runners.sh says why
    import celpy

    environment = celpy.Environment(runner_class=getattr(celpy, sys.argv[1]))
    runner, activation = environment.program(environment.compile(WHEN)), celpy.json_to_cel(VALUES)
    measured(lambda: bool(runner.evaluate(activation)), 300)
PYTHON
us() { "$folder/venv/bin/python" measure.py "$1"; }
interpreted=$(us InterpretedRunner) transpiled=$(us CompiledRunner) rust=$(us rust)
echo "cel-python: $interpreted µs interpreted, $transpiled µs transpiled; common-expression-language: $rust µs"
python3 -c "assert $interpreted > 50 * $rust and $transpiled > 10 * $rust, 'cel-python has changed'"
echo "as described"
