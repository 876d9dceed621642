"""The sections of docs/results.md, as Markdown (chapter §5).

A section is a function of what was found (`report_read.Found`) that returns its text, or None if the
files have nothing for it. Not here: figures (`report_figures.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.evaluation.suite import FROM_TEXT
from tinyflamingo.evaluation.words import means_rise
from tinyflamingo.studies.ablations import differences
from tinyflamingo.studies.report_read import SHOTS, cell_of, task_names

SAME_DATA = ("prototype", "linear", "finetuned")  # specialists trained on the same 32 examples
EVALUATE = "python -m tinyflamingo evaluate --suite"
RETRIEVAL = ("random", "rices", "ensemble")
SANITY = ("swapped", "shuffled", "no_pictures", "blind", "chance")


def table(head, rows) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def show(cell, digits=3) -> str:
    """0.912 (0.890 to 0.930), or a dash."""
    if not cell:
        return "–"
    text = f"{cell['score']:.{digits}f}"
    return text + (" ({:.{d}f} to {:.{d}f})".format(*cell["ci95"], d=digits) if cell.get("ci95") else "")


def few_shot(found):
    """What the figure of curves shows."""
    if not found.suites:
        return None
    n = len(found.suites)
    over = "its queries" if n == 1 else f"{n} seeds of the training (Student's t, cut where the scale ends)"
    return f"Score against shots, each task with its own metric. Bars: 95% interval over {over}."


def words(found):
    """Classes named by words that no training text has."""
    suites = list(found.suites.values())
    kinds = list(dict.fromkeys(kind for suite in suites for kind in suite.get("few_shot_words", {})))
    rows, told = [], []
    for kind in kinds:
        shots = sorted({n for suite in suites for n in suite.get("few_shot_words", {}).get(kind, {})}, key=int)
        curve = {n: cell_of(found.suites, "few_shot_words", kind, n) for n in shots}
        rows += [[kind, n, show(cell)] for n, cell in curve.items()]
        if len(curve) > 2:
            told.append(f"`{kind}` {'rises' if means_rise(curve) else 'does not always rise'} with shots")
    head = (
        "Classes differ in colour, in shape, or are things of one colour and shape, each in a third of episodes; in "
        "rows that name one of these, that one alone. One shot a class does not tell which of them is meant. A curve "
        "rises if no mean is more than 0.01 below the one before."
    )
    text = " ".join([head, *(f"{line}." for line in told)])
    return f"{text}\n\n{table(['classes', 'shots a class', 'score (95% interval)'], rows)}" if rows else None


def tasks(found):
    """The headline and the table of tasks."""
    if not found.suites:
        return None
    suites, rows = found.suites, []
    for name in task_names(suites):
        first = next(suite["tasks"][name] for suite in suites.values() if name in suite["tasks"])
        cells = [show(cell_of(suites, "tasks", name, "shots", shots)) for shots in SHOTS]
        cells += [show(cell_of(suites, "tasks", name, "specialists", who)) for who in (*SAME_DATA, "whole")]
        rows.append([f"`{name}`{' (DEV)' if first['dev'] else ''}", first["paper"], first["metric"], *cells])
    head = ["task", "like the paper's", "metric", *(f"{n} shots" for n in SHOTS), *SAME_DATA, "whole"]
    return f"{headline(suites)}\n\n{table(head, rows)}"


def headline(suites) -> str:
    """On how many tasks 32 shots beat the specialists; it is clear where the intervals part."""
    lines, fair = [], []
    for rivals, what in ((SAME_DATA, "every specialist trained on the same 32 examples"),
                         (("whole",), "the specialist trained on the whole training set")):  # fmt: skip
        margins = {name: margin for name in task_names(suites) if (margin := _margins(suites, name, rivals))}
        told = "With 32 shots in its prompt Flamingo beats {} on **{} of {}** tasks, clearly on {}."
        none = f"No run has both 32 shots and {what}."
        lines.append(told.format(what, *_wins(margins.values())) if margins else none)
        fair += _wins([margin for name, margin in margins.items() if name not in FROM_TEXT])
    apart = ", ".join(f"`{name}`" for name in task_names(suites) if name in FROM_TEXT)
    if apart and all(fair[1::3]):
        told = (
            "That counts tasks ({}) that ask what only texts told, which no specialist has read and no example of a "
            "training set holds; without them it is {} of {}, clearly on {}, and {} of {}, clearly on {}."
        )
        lines.append(told.format(apart, *fair))
    return " ".join(lines)


def _wins(margins) -> tuple:
    """How many margins are above 0, of how many, and how many clearly."""
    wins, clear = (sum(margin[i] > 0 for margin in margins) for i in (0, 1))
    return wins, len(margins), clear


def _margins(suites, name, rivals):
    """By how much 32 shots are above the best rival, and the lower end of the one above the upper of the other."""
    ours = cell_of(suites, "tasks", name, "shots", "32")
    cells = [cell for cell in (cell_of(suites, "tasks", name, "specialists", rival) for rival in rivals) if cell]
    if not ours or not cells:
        return None
    low, high = (
        (ours.get("ci95") or [ours["score"]])[0],
        max((cell.get("ci95") or [cell["score"]])[-1] for cell in cells),
    )
    return ours["score"] - max(cell["score"] for cell in cells), low - high


def sanity(found):
    """Whether answers come from where they should."""
    rows = []
    for name in task_names(found.suites):
        cells = [cell_of(found.suites, "tasks", name, "sanity", check) for check in SANITY]
        if any(cells):
            ours = cell_of(found.suites, "tasks", name, "shots", "32")
            rows.append([f"`{name}`", show(ours), *map(show, cells)])
    told = (
        "Swapped: of two queries that ask the same of pictures with different answers, both are right. Shuffled: the "
        "shots' answers are dealt out anew. No pictures: the shots' pictures are left out. Blind: the query's is. "
        "Chance: always the answer that the shots give most often, of those to choose from. Only invented words get "
        "all their meaning from the shots; what the other tasks ask was trained, so shots can do them less good, and "
        "less harm."
    )
    head = ["task", "32 shots", *(check.replace("_", " ") for check in SANITY)]
    return f"{told}\n\n{table(head, rows)}" if rows else None


def retrieval(found):
    """Shots as they come, chosen by likeness, and in several orders."""
    rows = []
    for name in task_names(found.suites):
        cells = [cell_of(found.suites, "tasks", name, "retrieval", how) for how in RETRIEVAL]
        if any(cells):
            parts = [suite["tasks"].get(name, {}).get("retrieval", {}) for suite in found.suites.values()]
            shots = {part["shots"] for part in parts if part}
            rows.append([f"`{name}`", " or ".join(map(str, sorted(shots))), *map(show, cells)])
    told = (
        "The same number of shots at random; those most similar to the query, the most similar last (RICES); and the "
        "mean log-likelihood over several orders of the random ones."
    )
    return f"{told}\n\n{table(['task', 'shots', *RETRIEVAL], rows)}" if rows else None


def ablations(found):
    """The table of differences, and where the toy disagrees with the paper."""
    raw = found.others.get("ablations")
    if raw is None:
        return None
    rows, against, steps = [], [], raw["settings"]["steps"]
    for name, row in differences(raw).items():
        what = raw["rows"][name]["what"]
        ends = "{:+.3f} to {:+.3f}".format(*row["ci95"]) if row["ci95"] else "–"
        rows.append([what, f"{row['score']:+.3f}", ends, row["n"], f"{row['paper']:+.1f}", row["verdict"]])
        against += [what] if row["verdict"] == "disagrees" else []
    told = (
        "Differences in overall score, the mean of captions (CIDEr-D over 10), questions, videos and new words, to a "
        f"baseline of {_baseline(raw)}. Each run has {steps} short step{'s' * (steps != 1)} of stage three; intervals "
        "are over seeds, pair by pair. The paper's points are hundredths of what models fine-tuned for a task reach. "
    )
    told += (
        "Here the toy disagrees with the paper: "
        if against
        else "Nowhere does the toy clearly disagree with the paper."
    )
    told += "; ".join(against) + "." * bool(against)
    head = ["row", "difference", "95% interval", "seeds", "the paper's difference", "sign"]
    return f"{told}\n\n{table(head, rows)}"


def _baseline(raw):
    seeds = raw["rows"].get("baseline", {"seeds": {}})["seeds"].values()
    names = next(iter(seeds))["scores"] if seeds else ()
    return ", ".join(f"{name} {np.mean([seed['scores'][name] for seed in seeds]):.3f}" for name in names) or "nothing"


def isoflop(found):
    """The optimum at every budget, and how it grows."""
    raw = found.others.get("isoflop", {})
    if not raw.get("fits"):  # or not all runs are finished
        return None
    rows = [
        [
            f"{fit['budget']:.1e}",
            f"{fit['parameters']:,.0f}{'' if fit['inside'] else ' (an end of the sizes tried)'}",
            f"{fit['tokens']:,.0f}",
            f"{fit['loss']:.3f}",
        ]
        for fit in raw["fits"]
    ]
    told = (
        "The language model alone, in several sizes, trained with equal compute, one seed; the lowest point of a "
        "parabola through each budget's lowest losses. "
    )
    if raw.get("exponents"):
        told += (
            "By the {budgets} budgets whose optimum lies between sizes tried, the best size grows as compute to the "
            "{parameters:.2f}, the best number of tokens as compute to the {tokens:.2f}; Chinchilla's were 0.49 and "
            "0.51 (Hoffmann et al. 2022, approach 2)."
        ).format(budgets=sum(fit["inside"] for fit in raw["fits"]), **raw["exponents"])
    return f"{told}\n\n{table(['flops', 'best parameters', 'best tokens', 'loss there'], rows)}"


def quadratic(found):
    """What each number of frames costs, and brings."""
    raw = found.others.get("quadratic")
    if raw is None:
        return None
    done = len(raw["kinds"]["transformer"]["ms"])
    rows = [[frames] for frames in raw["frames"][:done]]
    for kind in ("perceiver", "transformer"):
        mine = raw["kinds"][kind]
        for row, ms, mb, accuracy in zip(rows, mine["ms"], mine["mb"], mine["accuracy"], strict=False):
            row += [f"{ms:.1f}", f"{mb:.1f}", show(accuracy, 2)]
    head = [f"{kind}: {what}" for kind in ("resampler", "all to all") for what in ("ms", "MB", "accuracy")]
    told = (
        "A video's features, all frames, through the resampler and through self-attention of all to all: time and "
        "memory of forward and backward, and how often what happens is told."
    )
    return f"{told}\n\n{table(['frames', *head], rows)}"


def induction(found):
    """Where both pretrainings end."""
    raw = found.others.get("induction")
    if raw is None:
        return None
    rows = []
    for name, curve in raw["curves"].items():
        ends = [curve["repeat"][-1], curve["few_shot"][-1], max(map(max, curve["heads"]))]
        rows.append([name, *(f"{end:.3f}" for end in ends)])
    told = (
        "Language pretraining with and without the curriculum's random repeats. Repeats: share of tokens foretold in "
        "the second half of a random row. Text few-shot: the last label of an episode in words. Best head: how much of "
        "its attention goes to the token after the last time its token stood there (prefix matching)."
    )
    return f"{told}\n\n{table(['pretraining', 'repeats', 'text few-shot', 'best head'], rows)}"


def gates(found):
    """How far every gate is open at the end."""
    rows = [
        [run, f"`{gate.replace('/', ' ')}`", f"{value:.3f}"]
        for run, records in found.logs
        if records
        for gate, value in records[-1]["gates"].items()
    ]
    head = "|tanh(alpha)| of every gate at the end of stage three."
    return f"{head}\n\n{table(['run', 'gate', 'open'], rows)}" if rows else None


def attention(found):
    """What the figure of maps shows."""
    if "attention" not in found.others:
        return None
    return (
        "Where a word of the answer looks: its attention to the latents of its picture in the last gated block, "
        "carried on to the grid by the resampler's last layer; mean over heads."
    )


# name: (title, what writes it, what makes its file)
SECTIONS = {
    "few_shot": ("Few-shot curves", few_shot, EVALUATE),
    "words": ("Invented words", words, EVALUATE),
    "tasks": ("Sixteen tasks and their specialists", tasks, EVALUATE),
    "sanity": ("Checks", sanity, EVALUATE),
    "retrieval": ("Which shots, and in what order", retrieval, EVALUATE),
    "ablations": ("Ablations", ablations, "python -m tinyflamingo ablate"),
    "isoflop": ("Size against tokens at equal compute", isoflop, "python -m tinyflamingo ablate --only isoflop"),
    "quadratic": ("Latents against all to all", quadratic, "python -m tinyflamingo ablate --only quadratic"),
    "induction": ("How binding comes about", induction, "python -m tinyflamingo ablate --only induction"),
    "gates": ("Gates over training", gates, "python -m tinyflamingo train"),
    "attention": ("Where it looks", attention, "python -m tinyflamingo ablate --only attention"),
}
