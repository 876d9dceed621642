"""Against the clock: every line of the benchmark runs two sides in turn (see `run.py`).

`torch_twins.py` is the opponent, `lines.py` says what is raced, `run.py` races, `scaling.py` draws
how time and memory grow. Not here: any claim; `docs/performance.md` has the numbers.
"""
