"""VQAv2: a file of `questions` [{question_id, image_id, question}], a file of `annotations` with the answers.

The two are joined on `question_id`; the answer that training reads is `multiple_choice_answer`. A
picture's name is made of split and number, `COCO_train2014_000000000009.jpg`, or the number alone. In
memory are the answers by question, a few words each. Not here: the score of VQA.
"""

from __future__ import annotations

import re
from pathlib import Path
from sys import intern

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.readers.record import BadRecord, Root, each, field, words
from tinyflamingo.data.readers.text_files import elements
from tinyflamingo.errors import UserError

FILES = ("*questions.json", "annotations/*questions.json", "*.json")
SURE = ()
SHARDS = False


def matches(head) -> bool:
    """Whether the first element of an array of a JSON file, with the array's name, looks like it."""
    return head[0] == "questions"


def read(path, root: Root):
    """Records of picture, question (read, not learned) and answer."""
    answers, split = {}, _split(path)
    for _, row in elements(_annotations(path), "annotations"):
        try:
            answers[field(row, "question_id", int)] = intern(words(row, "multiple_choice_answer"))
        except BadRecord:
            continue  # its question will miss it

    def build(row):
        asked, number, key = words(row, "question"), field(row, "image_id", int), field(row, "question_id", int)
        if key not in answers:
            raise BadRecord("no answer to the question", key)
        return [_picture(root, split, number), Quiet(f"Question: {asked} Answer:"), f"{answers[key]}."]

    found = enumerate(elements(path, "questions"))
    return each(((f"{path.name} question {i}", row) for i, (_, row) in found), build)


def _split(path: Path) -> str:
    found = re.search(r"(train|val|test)\d{4}", path.name)
    return found[0] if found else ""


def _annotations(path: Path) -> Path:
    """The file of answers that belongs to a file of questions: beside it, of the same split."""
    beside = sorted(p for p in path.parent.glob("*annotations.json") if _split(p) == _split(path))
    if len(beside) != 1:
        raise UserError(
            f"{str(path)!r} needs one file of answers beside it, *{_split(path)}*annotations.json, found {len(beside)}"
        )
    return beside[0]


def _picture(root, split, number):
    for name in (f"COCO_{split}_{number:012d}.jpg", f"{number:012d}.jpg"):
        try:
            return root.medium(name, split)
        except BadRecord as error:
            if error.why != "file missing":
                raise
    raise BadRecord("file missing", f"COCO_{split}_{number:012d}.jpg")
