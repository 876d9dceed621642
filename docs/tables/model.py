"""Regions about the shipped checkpoint: scores, parameters, how it was made, answers; and the scores of other runs.

Not here: times (`speed.py`), the user's own data (`own_data.py`).
"""

from __future__ import annotations

import shlex

from tables.common import CHECKPOINT, RESULTS, ROOT, STAGES, card, duration, gigabytes, read, table

TESTS = ROOT / "docs" / "tests.json"
NO_TASKS = RESULTS / "no-tasks.json"
OMNIGLOT = RESULTS / "omniglot-validation.json"
EMOJI, EMOJI_ZH = RESULTS / "emoji.json", RESULTS / "emoji-zh.json"
# What each task of `evaluation/tasks.py` asks.
TASKS = {
    "zero_shot_classification": "stage one alone: the nearest of 96 captions names the thing",
    "caption": "caption of a single thing, word for word",
    "caption_relation": "caption of two things and their relation, word for word",
    "caption_heldout": "caption of a pair of shape and colour that training never shows",
    "vqa": "colour, shape, number, size and place in turn",
    "video_action": "what happens in a video of eight frames",
    "dialogue": "third answer of a dialogue; the first two answers are the model's own",
    "knowledge": "a question about a picture that needs a fact from text, as in training",
    "knowledge_heldout": "a fact that training never asks about a picture; the model names the thing first",
    "knowledge_direct": "the same facts; the model does not name the thing first",
    "few_shot_2way": "two invented words, four pictures each; the words occur in training, in text only",
    "few_shot_new_words": "the same with words that occur nowhere in training",
    "image_swap": "one question, two pictures with different answers: both must be right",
    "yes_no": "is the thing of this colour, of this shape, or both: yes or no",
}
# The examples in the README's region `answers`; each is run to fill the region.
EXAMPLES = (
    ("<image>Output:", "docs/examples/red_circle.png"),
    ("<image>Question: what shape is it? Answer:", "docs/examples/blue_star.png"),
    ("<video>Question: what happens? Answer:", "docs/examples/moves_left.mp4"),
    ("<image>lofa.<image>dimu.<image>", *(f"docs/examples/{n}.png" for n in ("red_circle", "blue_star", "red_house"))),
)


def scores() -> str:
    """The scores of the shipped checkpoint, beside other trainings and a guess without the picture."""
    guesses, rows, without = read(TESTS)["blind"], [], read(NO_TASKS)["tasks"]
    guesses["zero_shot_classification"] = guesses["caption"]  # a caption names one thing, too
    trainings = [read(path)["tasks"] for path in sorted(RESULTS.glob("seed_*.json"))]
    for name, row in card()["metrics"]["tasks"].items():
        low, high = row["ci95"]
        each = [row["score"], *(training[name]["score"] for training in trainings)]
        cells = [f"`{name}`", TASKS[name], f"{row['score']:.3f}", f"{low:.3f}–{high:.3f}", row["n"]]
        cells += [f"{sum(each) / len(each):.3f} ({min(each):.3f})"]
        cells += [f"{without[name]['score']:.3f}" if name in without else "–"]
        rows.append([*cells, f"{guesses[name]:.3f}"])
    seeds = f"mean of {1 + len(trainings)} trainings (worst)"
    head = ["task", "what is asked", "exact match", "95% interval", "n", seeds, "no training tasks", "blind guess"]
    return table(head, rows)


def twins() -> str:
    """How many test pictures of one thing have a twin in training."""
    share = read(TESTS)["twins"]
    three, both = share["stage three"], share["stages one and three"]
    return f"{three:.0%} of them in stage three, {both:.1%} in stages one and three together"


def perplexity() -> str:
    """The perplexity of text by both models, and the change."""
    p = card()["metrics"]["text_perplexity"]
    change = 100 * (p["flamingo"] / p["language_model"] - 1)
    return f"{p['language_model']:.3f} by the language model alone, {p['flamingo']:.3f} by Flamingo ({change:+.1f}%)"


def parameters() -> str:
    """The parameters of each part, and whether it is frozen."""
    from tinyflamingo.training.presets import get_preset, parameter_counts

    counts = parameter_counts(get_preset(card()["preset"]).config)
    rows = [[f"`{n}`" if n.startswith("<") else n, f"{r['parameters']:,}", r["state"]] for n, r in counts.items()]
    return table(["part", "parameters", ""], rows)


def headline() -> str:
    """The result of the suite of sixteen tasks, over all its seeds."""
    from tinyflamingo.studies import report_read, report_suite

    return report_suite.headline(report_read.read_runs([RESULTS]).suites)


LEVELS = (
    "{} for one property of a picture, {} for several, {} for videos, {} with new words around the properties, {} with "
    "renamed values or small functions"
)


def levels() -> str:
    """The scores of the tasks explained only by examples, with 32 shots, over all trainings."""
    from tinyflamingo.studies import report_read, report_suite

    means = report_suite.level_means(report_read.read_runs([RESULTS]).suites, "32")
    return LEVELS.format(*(mean.split()[0] for mean in means.values()))


def omniglot() -> str:
    """The error of the preset with two held-out alphabets."""
    report = read(OMNIGLOT)
    row = report["tasks"]["omniglot"]
    low, high = row["ci95"]
    runs = list(row["runs"].values())
    return (
        f"{row['score']:.3f} ({low:.3f} to {high:.3f}) of {row['n']} drawings in {len(runs)} runs; the best run had "
        f"{min(runs):.2f}, the worst {max(runs):.2f}; {duration(report['seconds'])} in all"
    )


def emoji() -> str:
    """The scores of the preset on emoji, how many concepts there are, and how long it took."""
    return _emoji(EMOJI)


def emoji_zh() -> str:
    """The same with Chinese names."""
    return _emoji(EMOJI_ZH)


def _emoji(path) -> str:
    report = read(path)
    rows = [
        [name, f"{row['score']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f})", row["n"]]
        + [f"{row[key]:.3f}" if key in row else "–" for key in ("ensemble", "class_means", "neighbours")]
        for name, row in report["emoji"].items()
    ]
    header = ["measure", "one prompt (95% interval)", "questions", "six prompts", "class means", "raw pixels"]
    stages = ", ".join(f"{STAGES.get(name, name)}: {duration(s)}" for name, s in report["stages"].items())
    concepts = f"{report['concepts']['training']:,} concepts for training, {report['concepts']['asked']} for tests"
    return f"{table(header, rows)}\n\n{concepts}. {stages}; together {duration(report['seconds'])}."


def emoji_tinyworld() -> str:
    """TinyWorld's scores after training on emoji, beside those of the shipped checkpoint."""
    reports = [report["tasks"] for report in (card()["metrics"], read(EMOJI), read(EMOJI_ZH))]
    rows = [[f"`{name}`", *(f"{tasks[name]['score']:.3f}" for tasks in reports)] for name in reports[1]]
    return table(["task", "shipped checkpoint", "after emoji", "after emoji with Chinese names"], rows)


def facts() -> str:
    """How the checkpoint was made."""
    info = card()
    stages = ", ".join(f"{STAGES.get(n, n)}: {duration(s)}" for n, s in info["stages"].items())
    rows = [
        ["command", f"`{info.get('command') or command(info)}`"],
        ["seed", info["seed"]],
        ["versions", ", ".join(f"{n} {v}" for n, v in info["versions"].items())],
        ["machine", f"{info['cores']} cores" if "cores" in info else "a laptop's processor, no GPU"],
        ["time", f"{stages}; together {duration(sum(info['stages'].values()))}"],
        ["peak memory", gigabytes(info)],
        ["sha256 of `weights.npz`", f"`{info['sha256']}`"],
    ]
    return table(["what", "value"], rows)


def command(info: dict) -> str:
    """The command that made a checkpoint, from its description."""
    preset = "" if info["preset"] == "toy" else f" --preset {info['preset']}"
    seed = f" --seed {info['seed']}" if info["seed"] else ""
    return f"python -m tinyflamingo train{preset}{seed}"


def answers() -> str:
    """The example commands, each with the answer of the shipped checkpoint."""
    import tinyflamingo
    from tinyflamingo.data.prompt import read_prompt

    model, lines = tinyflamingo.load(CHECKPOINT), []
    for template, *files in EXAMPLES:
        items = read_prompt(template, [ROOT / f for f in files], model.config.vision.side)
        lines.append(f"$ python -m tinyflamingo complete {shlex.quote(template)} {' '.join(files)}")
        lines.append(tinyflamingo.complete(model, items)["text"])
    return "\n".join(["```console", *lines, "```"])


REGIONS = (scores, twins, perplexity, parameters, headline, levels, omniglot, facts, answers)
REGIONS += (emoji, emoji_zh, emoji_tinyworld)
