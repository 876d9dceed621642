"""All that `python -m tinyflamingo ablate` can run: rows of the ablation table, and other studies (chapters §3 to §5).

Not here: the studies themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.studies.ablation_rows import preset_of, rows_of
from tinyflamingo.studies.ablations import STEPS, ablate, format_report
from tinyflamingo.studies.attention import attention
from tinyflamingo.studies.induction import induction
from tinyflamingo.studies.isoflop import isoflop
from tinyflamingo.studies.quadratic import quadratic

STUDIES: dict[str, Callable] = {
    "isoflop": lambda model, path, say: isoflop(model.tokenizer, path, say=say),
    "quadratic": lambda model, path, say: quadratic(model, path, say=say),
    "induction": lambda model, path, say: induction(model.tokenizer, path, preset_of(model), say=say),
    "attention": lambda model, path, say: attention(model, path, say=say),
}


def run_studies(
    model: TrainedFlamingo,
    path: Path,
    only: list | None = None,
    seeds: int = 3,
    steps: int | None = None,
    say: Callable = print,
) -> None:
    """Run all rows of the ablation table, or the rows and studies in `only`.

    The rows are reported in `path`, each study in NAME.json beside it. Raises `UserError` for an unknown name.
    """
    names = [*rows_of(model.config), *STUDIES]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"unknown ablation {unknown[0]!r}: choose from {', '.join(names)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [name for name in only or () if name not in STUDIES]
    if rows or not only:
        say(format_report(ablate(model, path, rows, seeds, steps or STEPS, say=say)))
    for name in only or ():
        if name in STUDIES:
            STUDIES[name](model, path.with_name(f"{name}.json"), say)
