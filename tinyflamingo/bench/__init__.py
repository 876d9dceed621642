"""Benchmarks: every line compares two sides, which run in turns (see `run.py`).

`torch_twins.py` is the opponent, `lines.py` defines the lines, `run.py` runs them, `scaling.py` measures how time and
memory grow, `sizes.py` counts what a model of any size costs. Not here: results; they are in `docs/performance.md`.
"""
