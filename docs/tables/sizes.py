"""Regions about the sizes and costs of the paper's models.

Not here: how they are counted (`tinyflamingo/bench/sizes.py`).
"""

from __future__ import annotations

from tables.common import table
from tables.speed import fastest_rate


def paper_parts() -> str:
    """The parts of the paper's three models in millions, beside the numbers of its table 5."""
    from tinyflamingo.bench.sizes import counts

    names = [f"flamingo-{size}{reading}" for size in ("3b", "9b", "80b") for reading in ("", "-printed")]
    parts, rows = {name: counts(name) for name in names}, []
    for part in ("vision encoder", "language model", "resampler", "gated blocks", "total"):
        cells = [f"{parts[name][part]['parameters'] / 1e6:,.0f}" for name in names]
        printed = [parts[name][part]["printed"] for name in names[::2]]
        rows.append([part, *(cell for i in range(3) for cell in (printed[i], *cells[2 * i : 2 * i + 2]))])
    header = ["millions", *(cell for i in range(0, 6, 2) for cell in ("paper", f"`{names[i]}`", "`-printed`"))]
    return table(header, rows)


def other_counts() -> str:
    """The encoders and the largest language model, each beside the number in its paper."""
    from tinyflamingo.bench.sizes import counts
    from tinyflamingo.variants.paper import A9, PAPER

    rows = []
    for name in [n for n in PAPER if n not in A9 and not n.startswith("flamingo")]:
        total = counts(name)["total"]
        rows.append([f"`{name}`", f"{total['parameters']:,}", total.get("printed", "–")])
    return table(["preset", "parameters", "paper"], rows)


def table_a9() -> str:
    """How well all rows of Chinchilla's table fit."""
    from tinyflamingo.bench.sizes import counts
    from tinyflamingo.variants.paper import A9

    off = [abs(counts(name)["total"]["parameters"] / 1e6 - millions) for name, (millions, *_) in A9.items()]
    return (
        f"All {len(off)} rows fit: the largest difference is {max(off):.2f} million; the table prints whole millions."
    )


def paper_costs() -> str:
    """The costs of a page: one row for each cost, one column for each model. Times are at `fastest_rate`."""
    from tinyflamingo.bench.sizes import duration, sizes, units

    columns = {}
    for name in ("toy", "flamingo-3b", "flamingo-9b", "flamingo-80b"):
        c = sizes(name, fastest_rate() * 1e9)["costs"]
        columns[f"`{name}`"] = {
            **{f"forward, {part}": units(row["flops"], "flop") for part, row in c["forward"].items()},
            "forward, all": units(c["forward_flops"], "flop"),
            "forward, read and written": units(c["forward_bytes"], "B"),
            "forward, time": duration(c["forward_seconds"]),
            "training step": units(c["step_flops"], "flop"),
            "training step, time": duration(c["step_seconds"]),
            "training": units(c["training_flops"], "flop"),
            "training, time": duration(c["training_seconds"]),
            "weights": units(c["weight_bytes"], "B"),
            "training holds": units(c["training_bytes"], "B"),
            "training holds, if nothing is frozen": units(c["training_bytes_unfrozen"], "B"),
        }
    costs = next(iter(columns.values()))
    return table(["", *columns], [[cost, *(c[cost] for c in columns.values())] for cost in costs])


REGIONS = (paper_parts, other_counts, table_a9, paper_costs)
