"""VQAv2: a file of `questions` [{question_id, image_id, question}] and a file of `annotations` with answers.

The two are joined on `question_id`; training reads the answer `multiple_choice_answer`, and the score of VQA all
ten. A picture's name contains the split and the number, `COCO_train2014_000000000009.jpg`, or only the number. Memory
holds the answers by question, a few words each. Not here: that score (`evaluation/metrics.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from sys import intern

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.readers.record import (
    LONGEST_TEXT,
    BadRecord,
    Record,
    Root,
    Skipped,
    each,
    field,
    own_files,
    words,
)
from tinyflamingo.data.readers.text_files import elements
from tinyflamingo.errors import UserError

FILES = ("*questions.json", "annotations/*questions.json", "*.json")
SURE = ()
SHARDS = False


def matches(head: tuple) -> bool:
    """Whether (name, first element) of an array in a JSON file has this format."""
    return head[0] == "questions"


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of picture, question (`Quiet`: read, not learned) and answer."""
    answers, split = {}, _split(path)
    for _, row in elements(_annotations(path), "annotations"):
        try:
            answers[field(row, "question_id", int)] = intern(words(row, "multiple_choice_answer")), _people(row)
        except BadRecord:
            continue  # its question is reported: no answer

    def build(row):
        question, number, key = words(row, "question"), field(row, "image_id", int), field(row, "question_id", int)
        if key not in answers:
            raise BadRecord("no answer to the question", key)
        answer, people = answers[key]
        items = [_picture(root, split, number), Quiet(f"Question: {question} Answer:"), f"{answer}."]
        return Record("", items, answers=people, written=(question, answer))

    rows = enumerate(elements(path, "questions"))
    return each(((f"{path.name} question {i}", row) for i, (_, row) in rows), build)


def _people(row) -> tuple:
    """The answers of all people to a question; () if the file has only one answer for each question."""
    given = row.get("answers", ())
    texts = [a.get("answer") for a in given if isinstance(a, dict)] if isinstance(given, list) else []
    return tuple(intern(answer) for answer in texts if isinstance(answer, str) and len(answer) <= LONGEST_TEXT)


def _split(path: Path) -> str:
    match = re.search(r"(train|val|test)\d{4}", path.name)
    return match[0] if match else ""


def _annotations(path: Path) -> Path:
    """The file of answers for a file of questions: in the same folder, of the same split."""
    split = _split(path)
    beside = [p for p in own_files(path.parent, "*annotations.json") if _split(p) == split]
    if len(beside) != 1:
        pattern = f"*{split}*annotations.json" if split else "*annotations.json"
        raise UserError(f"{str(path)!r} needs one file of answers in its folder, {pattern}; there are {len(beside)}")
    return beside[0]


def _picture(root, split, number):
    for name in (f"COCO_{split}_{number:012d}.jpg", f"{number:012d}.jpg"):
        try:
            return root.medium(name, split)
        except BadRecord as error:
            if error.why != "file missing":
                raise
    raise BadRecord("file missing", f"COCO_{split}_{number:012d}.jpg")
