"""The sections of docs/results.md about the suite's tasks, as Markdown (chapter §5).

A section is a function of the data of runs (`report_read.Runs`). It returns a text, or None without data.

Not here: all other sections (`report_text.py`), figures (`report_figures.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.evaluation.suite import FROM_TEXT, NEW_CLASSES
from tinyflamingo.evaluation.words import means_rise
from tinyflamingo.studies.report_markdown import code, show, table
from tinyflamingo.studies.report_read import LEVEL_SHOTS, SHOTS, Runs, cell_of, suites_with, task_names

SAME_DATA = ("prototype", "linear", "finetuned")  # specialists trained on the same 32 examples
RETRIEVAL = ("random", "rices", "ensemble")
SANITY = ("swapped", "shuffled", "no_pictures", "blind", "chance")


def few_shot(runs: Runs) -> str | None:
    """The caption of the figure with the curves."""
    if not runs.suites:
        return None
    numbers = sorted({len(suites_with(runs.suites, name)) for name in task_names(runs.suites)} or {1})
    several = " or ".join(str(n) for n in numbers if n > 1)
    over = ["queries"] * (1 in numbers)
    over += [f"{several} seeds of the training (Student's t, limited to the scale of the metric)"] if several else []
    text = "The score of each task, in its own metric, by the number of shots. Bars: 95% interval over {}."
    return text.format(" or over ".join(over))


def words(runs: Runs) -> str | None:
    """Classes with invented words as names."""
    curves = [suite.get("few_shot_words", {}) for suite in runs.suites.values()]
    rows, sentences = [], []
    for kind in dict.fromkeys(kind for suite in curves for kind in suite):
        shots = sorted({n for suite in curves for n in suite.get(kind, {})}, key=int)
        curve = {n: cell_of(runs.suites, "few_shot_words", kind, n) for n in shots}
        rows += [[kind, n, show(cell)] for n, cell in curve.items()]
        if len(curve) > 2:
            sentences.append(f"{code(kind)} {'rises' if means_rise(curve) else 'does not always rise'} with shots.")
    head = (
        "The classes of an episode differ by one rule: colour, shape, or thing (a colour with a shape). Each episode "
        "has a random rule; rows that name a rule have this one alone. With one shot per class the prompt does not "
        "show which rule holds. A curve rises if no mean is more than 0.01 below the mean before it."
    )
    text = " ".join([head, *sentences])
    return f"{text}\n\n{table(['classes', 'shots per class', 'score (95% interval)'], rows)}" if rows else None


def tasks(runs: Runs) -> str | None:
    """The headline and the table of tasks."""
    if not runs.suites:
        return None
    suites, rows = runs.suites, []
    for name in task_names(suites, with_level=False):
        first = suites_with(suites, name)[0]["tasks"][name]
        cells = [show(cell_of(suites, "tasks", name, "shots", shots)) for shots in SHOTS]
        cells += [show(cell_of(suites, "tasks", name, "specialists", who)) for who in (*SAME_DATA, "whole")]
        rows.append([f"{code(name)}{' (DEV)' if first['dev'] else ''}", first["paper"], first["metric"], *cells])
    head = ["task", "the paper's task", "metric", *(f"{n} shots" for n in SHOTS), *map(code, (*SAME_DATA, "whole"))]
    columns = (
        "With 0 shots the prompt begins with two examples without their pictures, as in the paper; for queries with "
        "candidates it has none. The last four columns are specialists: the first three are trained on the same 32 "
        "examples, `whole` on a whole training set. All choices were made on the tasks marked DEV."
    )
    return f"{headline(suites)}\n\n{columns}\n\n{table(head, rows)}"


LEVELS = (
    "Prompts of pictures or videos and answers, without a question. Training has many tasks of this form, but none "
    "of these families (`held_out` in `data/tinyworld/tasks.py`). Score: exact match. Levels: 1 one property, 2 "
    "several joined, 3 videos, 4 new words around the properties, 5 renamed values and functions. The first table "
    "has the mean over the tasks of a level without those marked DEV, and over seeds; in brackets, the worst seed. "
    "Training tasks: whether the training had tasks of this form; without them (`train --preset no-tasks`) their "
    "place in training belongs to its other documents. With 0 shots the prompt begins with two examples without their "
    "pictures, as in the paper."
)
LEVEL_RACE = (
    "With 32 shots in its prompt Flamingo beats the specialists `prototype`, `linear` and `finetuned`, trained on the "
    "same 32 examples, on **{} of {}** tasks, clearly on {}: the 95% intervals do not overlap. `tuned` is Flamingo "
    "itself, fine-tuned on these examples. It beats the prompt on {} of {}. `whole` has 3000 examples and fewer "
    "queries. All this compares scores of the same trainings, {} of {}. The columns of shots have the mean "
    "over all of them."
)


def level_tables(runs: Runs) -> str | None:
    """Tasks explained only by examples: the mean of each level, and the table of the tasks."""
    levels = _levels({**runs.suites, **{("without", seed): suite for seed, suite in runs.without.items()}})
    tested = _tested(levels)
    if not tested:
        return None
    means = [
        [level, documents, *(_mean_of_level(suites, names, n) for n in LEVEL_SHOTS)]
        for level, names in tested.items()
        for documents, suites in (("yes", runs.suites), ("no", runs.without))
        if suites
    ]
    rows = [_level_row(runs, level, *task) for level, tasks in levels.items() for task in tasks]
    names = [name for names in tested.values() for name in names]
    margins, tuned = (_all_margins(runs.suites, names, rivals) for rivals in (SAME_DATA, ("tuned",)))
    counts = *_wins(margins), sum(margin[0] < 0 for margin in tuned), len(tuned), *_trainings(runs.suites)
    race = [LEVEL_RACE.format(*counts)] if margins else []
    shots = [f"{n} shot{'s' * (n != '1')}" for n in LEVEL_SHOTS]
    specialists = map(code, (*SAME_DATA, "tuned", "whole"))
    head = ["level", "task", *shots, f"{shots[-1]}, no training tasks", *specialists]
    return "\n\n".join([LEVELS, table(["level", "training tasks", *shots], means), *race, table(head, rows)])


def level_means(suites: dict, shots: str) -> dict[int, str]:
    """{level: mean over its tasks and all seeds, with the worst seed in brackets}, without the tasks marked DEV."""
    return {level: _mean_of_level(suites, names, shots) for level, names in _tested(_levels(suites)).items()}


def _levels(suites):
    """{level: [(task, whether it is DEV)]}, in the order of the levels."""
    levels: dict[int, list] = {}
    for name in task_names(suites, with_level=True):
        part = suites_with(suites, name)[0]["tasks"][name]
        levels.setdefault(part["level"], []).append((name, part["dev"]))
    return dict(sorted(levels.items()))


def _tested(levels):
    """{level: names of its tasks that are not DEV}, without empty levels."""
    return {level: names for level, tasks in levels.items() if (names := [name for name, dev in tasks if not dev])}


def _trainings(suites):
    """How many suites have specialists for tasks explained only by examples, and how many have such tasks."""
    parts = [[part for part in suite["tasks"].values() if part.get("level")] for suite in suites.values()]
    return sum(any(task.get("specialists") for task in tasks) for tasks in parts), sum(map(bool, parts))


def _level_row(runs, level, name, dev):
    suites = runs.suites
    cells = [show(cell_of(suites, "tasks", name, "shots", n)) for n in LEVEL_SHOTS]
    cells.append(show(cell_of(runs.without, "tasks", name, "shots", LEVEL_SHOTS[-1])))
    cells += [show(cell_of(suites, "tasks", name, "specialists", who)) for who in (*SAME_DATA, "tuned", "whole")]
    return [level, f"{code(name)}{' (DEV)' if dev else ''}", *cells]


def _mean_of_level(suites, names, shots):
    """0.95 [0.91]: the mean over tasks and seeds, and the lowest mean of a seed."""
    seeds = []
    for suite in suites.values():
        scores = [cell["score"] for name in names if (cell := cell_of({0: suite}, "tasks", name, "shots", shots))]
        if len(scores) == len(names):
            seeds.append(np.mean(scores))
    return f"{np.mean(seeds):.2f} [{min(seeds):.2f}]" if seeds else "–"


def headline(suites: dict) -> str:
    """On how many tasks 32 shots beat the specialists, and on how many the intervals do not overlap."""
    lines = []
    counts: list[int] = []
    for rivals, what in ((SAME_DATA, "every specialist trained on the same 32 examples"),
                         (("whole",), "the specialist trained on the whole training set")):  # fmt: skip
        margins = {
            name: margin for name in task_names(suites, with_level=False) if (margin := _margins(suites, name, rivals))
        }
        text = "With 32 shots in its prompt Flamingo beats {} on **{} of {}** tasks, clearly on {}."
        missing = f"No run has both 32 shots and {what}."
        lines.append(text.format(what, *_wins(margins.values())) if margins else missing)
        counts += _wins([margin for name, margin in margins.items() if name not in FROM_TEXT])
    lines[1:1] = _without_shots(suites)
    if any("clearly" in line for line in lines):
        lines.append("Clearly means that the 95% intervals do not overlap.")
    from_text = ", ".join(code(name) for name in task_names(suites, with_level=False) if name in FROM_TEXT)
    if from_text and all(counts[1::3]):
        text = (
            "These counts include tasks ({}) that ask for facts which only texts state; no specialist reads these "
            "texts, and no example of a training set has the answers. Without them it is {} of {}, clearly on {}, and "
            "{} of {}, clearly on {}."
        )
        lines.append(text.format(from_text, *counts))
    return " ".join(lines)


def _without_shots(suites) -> list:
    """The sentence that says how little of the first count comes from the shots; [] without such scores."""
    margins = _all_margins(suites, task_names(suites, with_level=False), SAME_DATA, "0")
    if not margins:
        return []
    wins, total, _ = _wins(margins)
    new = ", ".join(code(name) for name in task_names(suites, with_level=False) if name in NEW_CLASSES)
    but = f" but {new}" if new else ""
    text = "Without any shot it already beats them on {} of {}, because training has the questions of all tasks{}."
    return [text.format(wins, total, but)]


def _wins(margins) -> tuple:
    """How many margins are above 0, how many there are, and how many are clearly above 0."""
    wins, clear = (sum(margin[i] > 0 for margin in margins) for i in (0, 1))
    return wins, len(margins), clear


def _all_margins(suites, names, rivals, shots="32"):
    """The margins of all tasks that have them."""
    return [margin for name in names if (margin := _margins(suites, name, rivals, shots))]


def _margins(suites, name, rivals, shots="32"):
    """The score with shots minus the best rival's score; the same with the lower end and the highest upper end.

    Over the suites that have both, so that the rivals are compared with the trainings beside which they were trained.
    """
    paired = {s: suite for s, suite in suites.items() if suite["tasks"].get(name, {}).get("specialists")}
    own = cell_of(paired, "tasks", name, "shots", shots)
    cells = [cell for cell in (cell_of(paired, "tasks", name, "specialists", rival) for rival in rivals) if cell]
    if not own or not cells:
        return None
    low = (own.get("ci95") or [own["score"]])[0]
    high = max((cell.get("ci95") or [cell["score"]])[-1] for cell in cells)
    return own["score"] - max(cell["score"] for cell in cells), low - high


def sanity(runs: Runs) -> str | None:
    """Scores of prompts with a changed part."""
    rows = []
    for name in task_names(runs.suites):
        cells = [cell_of(runs.suites, "tasks", name, "sanity", check) for check in SANITY]
        if any(cells):
            own = cell_of(runs.suites, "tasks", name, "shots", "32")
            rows.append([code(name), show(own), *map(show, cells)])
    text = (
        "Swapped: the fraction of pairs of queries, with one question and two different answers, in which both "
        "answers are right. Shuffled: the answers of the shots are in random order. No pictures: the shots have no "
        "pictures. Blind: the query has no picture. Chance: always the most common answer of the shots, among the "
        "candidates if the query has some. The invented words and the tasks explained only by examples get their whole "
        "meaning from the shots. Training has the questions of the other tasks, so shots can improve their scores "
        "less, and wrong shots can lower them less."
    )
    head = ["task", "32 shots", *(check.replace("_", " ") for check in SANITY)]
    return f"{text}\n\n{table(head, rows)}" if rows else None


def retrieval(runs: Runs) -> str | None:
    """Random shots, similar shots, and several orders of the shots."""
    rows = []
    for name in task_names(runs.suites):
        cells = [cell_of(runs.suites, "tasks", name, "retrieval", how) for how in RETRIEVAL]
        if any(cells):
            parts = [suite["tasks"].get(name, {}).get("retrieval", {}) for suite in runs.suites.values()]
            shots = {part["shots"] for part in parts if part}
            rows.append([code(name), " or ".join(map(str, sorted(shots))), *map(show, cells)])
    text = (
        "Equally many shots in three ways: random; the most similar to the query, the most similar last (RICES); the "
        "random ones in several orders. With candidates the answer is the one with the highest mean log-likelihood "
        "over the orders, and without candidates the one that is written most often."
    )
    return f"{text}\n\n{table(['task', 'shots', *RETRIEVAL], rows)}" if rows else None
