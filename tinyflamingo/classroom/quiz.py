"""Five questions for each notebook. Each wrong answer names the misconception behind it.

The texts are in ``quizzes/NN.toml``: a question, the right answer and why it is right, three wrong answers each with
what to say about it. Chinese comes from ``locale/zh_CN/quizzes.po``. Serves the notebooks and ``class quiz``.
Not here: the checks of exercises (`checks/`).
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tinyflamingo.language import _, wrapped

QUIZZES = Path(__file__).resolve().parent / "quizzes"
LETTERS = "abcd"
OPEN = "."  # stands for an answer that is not given yet
WIDTH = 100


class Answer(NamedTuple):
    """A possible answer, whether it is right, and what to say to those who choose it."""

    text: str
    right: bool
    reply: str


class Question(NamedTuple):
    """A question and its answers, in an order that is the same at every run."""

    text: str
    answers: list[Answer]


def numbers() -> list[str]:
    """The numbers of the notebooks that have a quiz: "00", "01" and so on."""
    return sorted(path.stem for path in QUIZZES.glob("*.toml"))


def questions(number: str) -> list[Question]:
    """The quiz of a notebook, in the language of the reader; the order of the answers is the same in both."""
    return [_question(raw) for raw in _read(number)["question"]]


def _read(number):
    return tomllib.loads((QUIZZES / f"{number}.toml").read_text(encoding="utf-8"))


def _question(raw):
    asked, choices = raw["text"], [(raw["right"], True, raw["why"])]
    choices += [(text, False, reply) for text, reply in raw["wrong"]]
    answers = [Answer(_(text), right, _(reply)) for text, right, reply in choices]
    random.Random(asked).shuffle(answers)  # else the right one would always be the first
    return Question(_(asked), answers)


def ask_quiz(number: str) -> None:
    """Print the questions of a notebook."""
    for place, question in enumerate(questions(number), start=1):
        print(_wrapped(f"{place}. ", question.text))
        for letter, answer in zip(LETTERS, question.answers, strict=True):
            print(_wrapped(f"   {letter}) ", answer.text))
        print()


def _wrapped(start, text):
    return "\n".join(wrapped(text, WIDTH, start))


def check_quiz(number: str, letters: str) -> None:
    """Print what is right and what is not. letters: one for each question, such as "ab.dc"; a dot is an open one."""
    asked = questions(number)
    if not isinstance(letters, str) or len(letters) != len(asked):
        words = _("Write {count} letters in quotes, one for each question, with a dot for a question left open.")
        print(words.format(count=len(asked)))
        return
    for place, (question, letter) in enumerate(zip(asked, letters.lower(), strict=True), start=1):
        print(_wrapped(_("Question {place}").format(place=place), _reply(question, letter)))


def _reply(question, letter):
    if letter == OPEN:
        return _(" is not done yet.")
    if letter not in LETTERS:
        return _(": the answers are a, b, c and d, not {letter!r}.").format(letter=letter)
    answer = question.answers[LETTERS.index(letter)]
    return (_(": right. {reply}") if answer.right else _(": not yet. {reply}")).format(reply=answer.reply)


def gift() -> Iterator[str]:
    """Lines of all quizzes in the format GIFT, which Moodle and other systems for courses import."""
    for number in numbers():
        title = _read(number)["title"]
        yield f"$CATEGORY: tinyflamingo/{number} {_escaped(_(title))}\n"
        for place, question in enumerate(questions(number), start=1):
            yield f"::{number}.{place}::[plain]{_escaped(question.text)} {{"
            for answer in question.answers:
                yield f"  {'=' if answer.right else '~'}{_escaped(answer.text)}#{_escaped(answer.reply)}"
            yield "}\n"


def _escaped(text):
    """Characters that have a meaning in GIFT, behind a backslash."""
    return re.sub(r"([\\~=#{}:])", r"\\\1", text)
