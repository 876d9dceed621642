"""A threshold for `complete`: the probability that most answers reach on pictures of the training's kind.

Chapter §5. The model answers about pictures that training never saw: held-out records of the user's own data, or fresh
pictures of TinyWorld. The threshold is the probability that most of these answers reach (95 in 100 by default). It is
written into the card of the checkpoint; `complete` compares its answer with it.

What the number can say: the model is less sure than it usually is about pictures of the training's kind, so the picture
may be of another kind. What it cannot say: that an answer above the threshold is right. A model can be sure and wrong,
most of all about pictures that resemble those of training in colour and shape only.

Not here: the comparison (`decoding/complete.py`).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.checkpoint import add_to_card
from tinyflamingo.data.images import Unreadable
from tinyflamingo.data.readers import has_records
from tinyflamingo.data.readers.decode import load
from tinyflamingo.data.readers.record import media_file, own_files
from tinyflamingo.data.readers.webdataset import PICTURES
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_pair, sample_single
from tinyflamingo.decoding.complete import complete
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import auc
from tinyflamingo.language import _
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.own_data.questions import Question, questions, unseen
from tinyflamingo.own_data.scores import own_sides
from tinyflamingo.training.presets import PRESETS

STREAM = 20261201  # of the pictures of TinyWorld; no other code uses the number
MOST = 400  # questions
FEWEST = 20  # with fewer answers, one in twenty is less than one
Asked = tuple[np.ndarray, str, tuple]  # pixels, the text after them, accepted answers


def calibrate(
    model: TrainedFlamingo,
    folder: Path,
    data: str | None = None,
    test: str | None = None,
    unlike: str | None = None,
    kept: float = 0.95,
) -> dict:
    """Write the threshold into the card of the checkpoint in `folder`, and return it with what it is worth.

    data, test: as for `evaluate`. unlike: a data set of other pictures, or a folder of pictures alone, all of which
    should be below the threshold. kept: the share of answers that reach it. Returns {"threshold", "kept", "n", "asked",
    "right_above", "right_below"}, and with `unlike` {"n_unlike", "unlike_below", "auc"}. `UserError` if there are too
    few pictures.
    """
    if kept == 0:
        raise UserError("--kept is 0, so no answer would reach the threshold: give a share above 0")
    asked = _own(model, folder, data, test) if data or test or model.info.get("data") else _tinyworld(model)
    if len(asked) < FEWEST:
        raise UserError(f"a threshold needs {FEWEST} held-out pictures, but there are {len(asked)}: give --test PATH")
    probabilities, right = answers(model, asked)
    threshold = float(np.quantile(probabilities, 1 - kept))
    texts = list(dict.fromkeys(text for _, text, _ in asked))
    fact = {"threshold": threshold, "kept": kept, "n": len(asked), "asked": texts[0] if len(texts) == 1 else ""}
    above = probabilities >= threshold
    report = fact | {"right_above": _mean(right[above]), "right_below": _mean(right[~above])}
    report |= _against(model, folder, unlike, probabilities, threshold, texts) if unlike else {}
    add_to_card(folder, unlike=fact)
    return report


def _mean(hits):
    return float(np.mean(hits)) if len(hits) else None


def answers(model: TrainedFlamingo, asked: list[Asked]) -> tuple[np.ndarray, np.ndarray]:
    """The probability (n,) of each greedy answer, and whether it is accepted (n,)."""

    def one(question):
        pixels, text, accepted = question
        answer = complete(model, [pixels, text])
        return answer["probability"], answer["text"] in accepted

    probabilities, right = zip(*ops.parallel_map(one, asked), strict=True)
    return np.array(probabilities), np.array(right)


def _own(model, folder, data, test) -> list[Asked]:
    with own_sides(model, folder, data, test) as (training, side, shown):
        return [_asked(q) for q in questions(unseen(side, training, *shown), MOST)]


def _asked(question: Question) -> Asked:
    pixels = question.pixels()
    return np.array(pixels if len(pixels) > 1 else pixels[0]), question.asked, question.accepted


def _tinyworld(model) -> list[Asked]:
    preset = model.info.get("preset")
    if preset not in PRESETS or PRESETS[preset].reads_archives:
        raise UserError(
            "the checkpoint did not learn from pictures of TinyWorld alone: give pictures of its kind, "
            "--data PATH or --test PATH"
        )
    rng = split_rng("test", STREAM)
    scenes = [(sample_single if i % 2 else sample_pair)(rng) for i in range(MOST // 2)]
    side = model.config.vision.side
    return [(draw_scene(rng, scene, side), "Output:", (say.caption(scene),)) for scene in scenes]


def _pictures(folder) -> list[Path]:
    """The pictures of a folder without captions, at most MOST, evenly spaced; [] for data in a known format."""
    paths = [p for p in own_files(folder, "*") if p.suffix.lower() in PICTURES] if folder.is_dir() else []
    return [] if not paths or has_records(folder) else paths[:: -(-len(paths) // MOST)]


def _asked_in_turn(paths, texts, vision) -> list[Asked]:
    """The same texts, in turn, after these pictures. Files that cannot be read are left out."""
    asked: list[Asked] = []
    for path in paths:
        with suppress(Unreadable):
            pixels = load(media_file(path.name, path), vision.side, vision.preparation)
            asked.append((pixels if len(pixels) > 1 else pixels[0], texts[len(asked) % len(texts)], ()))
    return asked


def _against(model, folder, unlike, probabilities, threshold, texts) -> dict:
    """How many answers about other pictures are below the threshold, and how well the probability separates them."""
    plain = _pictures(Path(unlike))
    if plain:
        asked = _asked_in_turn(plain, texts, model.config.vision)
    else:
        with own_sides(model, folder, unlike, None, everything=True) as (side, *_):
            asked = [_asked(q) for q in questions(side, MOST)]
    if not asked:
        raise UserError(f"{unlike} has no record of one picture and one text to ask about: give other data to --unlike")
    others = answers(model, asked)[0]
    labels = np.arange(len(probabilities) + len(others)) < len(probabilities)
    separation = auc(np.concatenate([probabilities, others]), labels)
    return {"n_unlike": len(others), "unlike_below": float((others < threshold).mean()), "auc": separation}


def describe(report: dict) -> str:
    """The report as lines for people."""
    above, below = (_share(report[name]) for name in ("right_above", "right_below"))
    reach = _(f"{report['kept']:.0%} of the answers about {report['n']} pictures that training never saw reach it")
    lines = [
        _(f"threshold: {report['threshold']:.4f}; {reach}"),
        _(f"answers that are right: {above} of those that reach it, {below} of those below it"),
    ]
    if "auc" in report:
        noticed = _(f"{report['unlike_below']:.2f} of {report['n_unlike']} are below it")
        lines.append(_(f"other pictures: {noticed}; AUC {report['auc']:.3f}"))
    return "\n".join(lines)


def _share(value):
    return _("unknown") if value is None else f"{value:.2f}"
