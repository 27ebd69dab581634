#!/usr/bin/env bash
# cel-python 0.5.0: an Environment whose runner_class is the CompiledRunner can make no program in a process that has made
# an Environment with the default runner before: `AttributeError: 'Tree' object has no attribute 'checked_exception'`, for
# any expression. The parser is made once for the class CELParser (celparser.py), with the kind of nodes that the first
# Environment's runner wants. The other order works.
#
# Seen on Python 3.11:
#   CompiledRunner alone               True
#   CompiledRunner, then interpreted   True True
#   interpreted, then CompiledRunner   True AttributeError: 'Tree' object has no attribute 'checked_exception'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cel-python==0.5.0
mkdir "$folder/work" && cd "$folder/work"
cat > evaluate.py <<'PYTHON'
import sys

import celpy

for name in sys.argv[1:]:
    environment = celpy.Environment(runner_class=getattr(celpy, name))
    try:
        runner = environment.program(environment.compile("a > 1"))
    except AttributeError as error:
        print(f"AttributeError: {error}")
        break
    print(bool(runner.evaluate({"a": celpy.celtypes.IntType(2)})))
PYTHON
python="$folder/venv/bin/python"
alone=$("$python" evaluate.py CompiledRunner)
first=$("$python" evaluate.py CompiledRunner InterpretedRunner | tr '\n' ' ')
after=$("$python" evaluate.py InterpretedRunner CompiledRunner | tr '\n' ' ')
printf '%s\n' "CompiledRunner alone: $alone" "CompiledRunner, then interpreted: $first" "interpreted, then CompiledRunner: $after"
[ "$alone" = True ] && [ "$first" = "True True " ]
[ "$after" = "True AttributeError: 'Tree' object has no attribute 'checked_exception' " ] || { echo "cel-python has changed"; exit 1; }
echo "as described"
