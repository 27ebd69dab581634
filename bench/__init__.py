"""What the project measures of itself: ``python -m bench`` runs all of it, ``python -m bench.NAME`` one part.

Never a test: a figure depends on the machine. ``rig`` has what the parts share, ``docs/benchmarks.md`` what they found.
"""
