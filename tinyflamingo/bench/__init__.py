"""Benchmarks: every line compares two sides, which run in turns (see `run.py`).

`lines.py` is the table of lines, `run.py` runs them, `contest.py` says what a line is. Our sides: `step_lines.py`,
`part_lines.py`, `job_lines.py`. The opponents: `torch_twins.py` (the model) with `torch_sides.py` (what is timed), and
`jax_twins.py`. `scaling.py` measures how time and memory grow, `sizes.py` counts what a model of any size costs. Not
here: results; they are in `docs/performance.md`.
"""
