"""Everything that `python -m tinyflamingo ablate` can run: rows of the ablation table, and studies beside it.

Serves chapters §3 to §5. Not here: the studies themselves.
"""

from __future__ import annotations

from tinyflamingo.errors import UserError
from tinyflamingo.studies.ablation_rows import preset_of, rows_of
from tinyflamingo.studies.ablations import STEPS, ablate, format_report
from tinyflamingo.studies.attention import attention
from tinyflamingo.studies.induction import induction
from tinyflamingo.studies.isoflop import isoflop
from tinyflamingo.studies.quadratic import quadratic

STUDIES = {
    "isoflop": lambda model, path, say: isoflop(model.tokenizer, path, say=say),
    "quadratic": lambda model, path, say: quadratic(model, path, say=say),
    "induction": lambda model, path, say: induction(model.tokenizer, path, preset_of(model), say=say),
    "attention": lambda model, path, say: attention(model, path, say=say),
}


def run_studies(model, path, only=None, seeds=3, steps=None, say=print):
    """All rows of the ablation table into `path`, or those called `only`; the report of a study beside it: NAME.json.

    Raises `UserError` for a name that is neither a row nor a study.
    """
    names = {*rows_of(model.config), *STUDIES}
    odd = sorted(set(only or ()) - names)
    if odd:
        raise UserError(
            f"no ablation is called {odd[0]!r}: choose from {', '.join([*rows_of(model.config), *STUDIES])}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [name for name in only or () if name not in STUDIES]
    if rows or not only:
        say(format_report(ablate(model, path, rows, seeds, steps or STEPS, say=say)))
    for name in only or ():
        if name in STUDIES:
            STUDIES[name](model, path.with_name(f"{name}.json"), say)
