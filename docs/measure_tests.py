"""Measures how new the test pictures of `evaluate` are, and how far one gets without them.

    python docs/measure_tests.py [docs/tests.json]

Twins: the share of the test pictures of single things that have, in training with the same seed, a picture of the same
shape, colour, size and place. Blind: the share of right answers of the best guess without the last picture. The guess
is the most common right answer to the question; it is chosen on one half of the queries and scored on the other half.
Nothing is drawn, only the scenes are sampled. `docs/make_tables.py` puts the numbers into docs/scores.md and the card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tinyflamingo.data.tinyworld import pool as pools  # noqa: E402
from tinyflamingo.data.tinyworld.pool import Medium, Pool, scene_pool, split_rng  # noqa: E402
from tinyflamingo.data.tinyworld.scenes import content  # noqa: E402
from tinyflamingo.evaluation import tasks  # noqa: E402
from tinyflamingo.evaluation.run import STREAM  # noqa: E402
from tinyflamingo.training.contrastive_stage import sample_family  # noqa: E402
from tinyflamingo.training.flamingo_stage import draw_media  # noqa: E402
from tinyflamingo.training.presets import get_preset  # noqa: E402
from tinyflamingo.training.stage import step_rng  # noqa: E402

QUERIES = 40000  # of each task


def undrawn(rng: np.random.Generator, scenes: list, clips: tuple | list = (), *drawing: object, side: int = 0) -> Pool:
    """A pool without pixels, in place of `draw_pool`."""
    return scene_pool(scenes, clips)


def twins(seed: int = 0) -> dict:
    """The share of test singles with a twin among the pictures of stage three, and of stages one and three."""
    preset = get_preset("toy")
    stage_three = draw_media(step_rng(seed, 2, -1), preset.flamingo, preset.config.vision.side).scenes
    rng = step_rng(seed, 0, -1)
    stage_one = [scene for _ in range(preset.contrastive.families) for scene in sample_family(rng)]
    tested = [content(scene) for scene in tasks.TASKS["caption"](split_rng("test", STREAM, seed, 1), QUERIES)[0].scenes]
    known = {content(scene) for scene in stage_three}
    share = {"stage three": np.mean([scene in known for scene in tested])}
    known |= {content(scene) for scene in stage_one}
    return share | {"stages one and three": np.mean([scene in known for scene in tested])}


def asked(query: tasks.Query) -> tuple:
    """What is known without the last picture: the texts after it; and the answer as (place among the labels, words).

    A label that is in the prompt counts as its place there, because invented words are new in every prompt.
    """
    last = max(i for i, item in enumerate(query.prompt) if isinstance(item, Medium))
    labels = list(dict.fromkeys(item for item in query.prompt[:last] if isinstance(item, str)))
    place = labels.index(query.answer) if query.answer in labels else -1
    return (*query.prompt[last + 1 :], *query.turns), (place, "" if place >= 0 else query.answer)


def blind(name: str) -> float:
    """The score of the best guess in a task."""
    queries = tasks.TASKS[name](split_rng("validation", STREAM), QUERIES)[1]
    half = len(queries) // 4 * 2  # the pairs of `image_swap` stay together
    counts: dict = defaultdict(Counter)
    for question, answer in map(asked, queries[:half]):
        counts[question][answer] += 1
    guesses = {question: answers.most_common(1)[0][0] for question, answers in counts.items()}
    hits = np.array([guesses.get(question) == answer for question, answer in map(asked, queries[half:])])
    return float((hits.reshape(-1, 2).all(axis=1) if name == "image_swap" else hits).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    file = parser.parse_args().file
    pools.draw_pool = tasks.draw_pool = undrawn
    report = {"twins": {name: round(float(share), 4) for name, share in twins().items()}}
    report["blind"] = {name: round(blind(name), 4) for name in tasks.TASKS}
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    if file:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
