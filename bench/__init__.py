"""What the project measures of itself: ``python -m bench`` runs all of it, ``python -m bench.NAME`` one part.

No tests: a figure depends on the machine. ``rig`` is what the parts share; their results are in ``docs/benchmarks.md``.
"""
