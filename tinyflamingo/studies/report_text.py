"""The sections of docs/results.md, as Markdown (chapter §5).

A section is a function of the data of runs (`report_read.Runs`). It returns a text, or None without data.

Not here: the sections about the suite's tasks (`report_suite.py`), figures (`report_figures.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyflamingo.studies.ablations import differences
from tinyflamingo.studies.report_markdown import code, show, table
from tinyflamingo.studies.report_read import Runs
from tinyflamingo.studies.report_suite import few_shot, level_tables, retrieval, sanity, tasks, words


def ablations(runs: Runs) -> str | None:
    """The table of differences, and the rows with another sign than the paper's."""
    raw = runs.others.get("ablations")
    if raw is None:
        return None
    rows, against, steps = [], [], raw["settings"]["steps"]
    for name, row in differences(raw).items():
        what = raw["rows"][name]["what"]
        ends = "{:+.3f} to {:+.3f}".format(*row["ci95"]) if row["ci95"] else "–"
        rows.append([what, f"{row['score']:+.3f}", ends, row["n"], f"{row['paper']:+.1f}", row["verdict"]])
        against += [what] if row["verdict"] == "disagrees" else []
    text = (
        "The difference to the baseline in overall score. A ViT is compared with the usual encoder after a stage one "
        "that is as short. The overall score is the mean of captions (CIDEr-D divided by 10), questions, videos and "
        f"new words. The baseline has {_baseline(raw)}. Each run has {steps} short step{'s' * (steps != 1)} of stage "
        "three: half of the usual documents in a step, a quarter of the pictures. Intervals are over seeds, from the "
        "difference of each seed. The paper's scores are in percent of the scores of models fine-tuned for a task. "
    )
    disagree = f"Here the toy disagrees with the paper: {'; '.join(against)}."
    text += disagree if against else "No row clearly disagrees with the paper."
    head = ["row", "difference", "95% interval", "seeds", "the paper's difference", "sign"]
    return f"{text}\n\n{table(head, rows)}"


def _baseline(raw):
    seeds = raw["rows"].get("baseline", {"seeds": {}})["seeds"].values()
    names = next(iter(seeds))["scores"] if seeds else ()
    return ", ".join(f"{name} {np.mean([seed['scores'][name] for seed in seeds]):.3f}" for name in names) or "no run"


def isoflop(runs: Runs) -> str | None:
    """The best size for each budget, and how it grows."""
    raw = runs.others.get("isoflop", {})
    if not raw.get("fits"):  # not all runs are finished
        return None
    rows = [
        [
            f"{fit['budget']:.1e}",
            f"{fit['parameters']:,.0f}{'' if fit['inside'] else ' (at the end of the tried sizes)'}",
            f"{fit['tokens']:,.0f}",
            f"{fit['loss']:.3f}",
        ]
        for fit in raw["fits"]
    ]
    text = (
        "The language model alone, in several sizes, trained with equal compute and one seed. The best size of a "
        "budget is at the minimum of a parabola through its lowest losses. "
    )
    if raw.get("exponents"):
        text += (
            "Over the {budgets} budgets with a best size between tried sizes, the best size grows as compute to the "
            "power {parameters:.2f}, the best number of tokens as compute to the power {tokens:.2f}. Chinchilla has "
            "0.49 and 0.51 (Hoffmann et al. 2022, approach 2)."
        ).format(budgets=sum(fit["inside"] for fit in raw["fits"]), **raw["exponents"])
    return f"{text.strip()}\n\n{table(['flops', 'best parameters', 'best tokens', 'loss'], rows)}"


def quadratic(runs: Runs) -> str | None:
    """Cost and accuracy for each number of frames."""
    raw = runs.others.get("quadratic")
    if raw is None:
        return None
    done = len(raw["kinds"]["transformer"]["ms"])
    rows = [[frames] for frames in raw["frames"][:done]]
    for kind in ("perceiver", "transformer"):
        values = raw["kinds"][kind]
        for row, ms, mb, accuracy in zip(rows, values["ms"], values["mb"], values["accuracy"], strict=False):
            row += [f"{ms:.1f}", f"{mb:.1f}", show(accuracy, 2)]
    head = [f"{kind}: {what}" for kind in ("resampler", "self-attention") for what in ("ms", "MB", "accuracy")]
    text = (
        "The features of all frames of a video go through the resampler, or through self-attention of all features to "
        "all features. Time and memory of forward and backward, and the accuracy of recognising the action."
    )
    return f"{text}\n\n{table(['frames', *head], rows)}"


def induction(runs: Runs) -> str | None:
    """The scores of both pretrainings at the end."""
    raw = runs.others.get("induction")
    if raw is None:
        return None
    rows = []
    for name, curve in raw["curves"].items():
        ends = [curve["repeat"][-1], curve["few_shot"][-1], max(map(max, curve["heads"]))]
        rows.append([name, *(f"{end:.3f}" for end in ends)])
    text = (
        "Language pretraining with and without the random repeats of the curriculum. Repeats: the fraction of tokens "
        "predicted correctly in the second half of a random row. Text few-shot: the fraction of episodes in words "
        "whose last label is predicted correctly. Best head: its mean attention to the token after the previous "
        "occurrence of the current token (prefix matching)."
    )
    return f"{text}\n\n{table(['pretraining', 'repeats', 'text few-shot', 'best head'], rows)}"


def gates(runs: Runs) -> str | None:
    """The value of every gate at the end."""
    rows = [
        [run, code(gate.replace("/", " ")), f"{value:.3f}"]
        for run, records in runs.logs
        if records
        for gate, value in records[-1]["gates"].items()
    ]
    head = "|tanh(alpha)| of every gate at the end of stage three."
    return f"{head}\n\n{table(['run', 'gate', 'value'], rows)}" if rows else None


def attention(runs: Runs) -> str | None:
    """The caption of the figure with the maps."""
    if "attention" not in runs.others:
        return None
    return (
        "The attention of each token of an answer to the grid of its picture: its attention to the latents in the "
        "last gated block, times the attention of the latents to the grid in the resampler's last layer. Mean over "
        "heads."
    )


def notes(name: str, runs: Runs) -> list[str]:
    """What the files say about their part of a section, such as the recipe of their training."""
    files = [*runs.suites.values(), *runs.without.values(), *runs.others.values()]
    return list(dict.fromkeys(file["notes"][name] for file in files if name in file.get("notes", {})))


EVALUATE = "python -m tinyflamingo evaluate --suite"
# name: (title, function that writes it, command that makes its file)
SECTIONS: dict[str, tuple[str, Callable, str]] = {
    "few_shot": ("Few-shot curves", few_shot, EVALUATE),
    "words": ("Invented words", words, EVALUATE),
    "levels": ("Tasks explained only by examples", level_tables, EVALUATE),
    "tasks": ("Sixteen tasks that correspond to the paper's, and their specialists", tasks, EVALUATE),
    "sanity": ("Sanity checks", sanity, EVALUATE),
    "retrieval": ("Choice and order of shots", retrieval, EVALUATE),
    "ablations": ("Ablations", ablations, "python -m tinyflamingo ablate"),
    "isoflop": ("Size and tokens at equal compute", isoflop, "python -m tinyflamingo ablate --only isoflop"),
    "quadratic": ("Resampler and self-attention", quadratic, "python -m tinyflamingo ablate --only quadratic"),
    "induction": ("Induction heads and binding", induction, "python -m tinyflamingo ablate --only induction"),
    "gates": ("Gates during training", gates, "python -m tinyflamingo train"),
    "attention": ("Attention maps", attention, "python -m tinyflamingo ablate --only attention"),
}
