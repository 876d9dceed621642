"""The quizzes: five questions for each notebook, checked in it, and exported."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tinyflamingo import cli
from tinyflamingo.classroom import quiz

SOURCES = sorted((Path(__file__).parents[2] / "notebooks" / "src").glob("*.py"))
every = pytest.mark.parametrize("number", quiz.numbers())


def letters_of(number, right):
    """The first letter of each question that is right, or wrong."""
    return "".join(
        next(x for x, a in zip(quiz.LETTERS, q.answers, strict=True) if a.right == right)
        for q in quiz.questions(number)
    )


def test_each_notebook_has_its_quiz_and_asks_it():
    assert quiz.numbers() == [source.name[:2] for source in SOURCES]
    for source in SOURCES:
        code, number = source.read_text(encoding="utf-8"), source.name[:2]
        assert f'ask_quiz("{number}")' in code and f'check_quiz("{number}", ".....")' in code


@every
def test_five_questions_each_with_one_right_answer_and_a_reply_for_all(number):
    asked = quiz.questions(number)
    assert len(asked) == 5
    for question in asked:
        assert sum(answer.right for answer in question.answers) == 1
        assert len({answer.text for answer in question.answers}) == len({a.reply for a in question.answers}) == 4
        assert all(answer.text.strip() and answer.reply.endswith((".", "?")) for answer in question.answers)


def test_a_letter_and_a_length_say_nothing():
    """The right answer is at every place about as often, and it is not always the longest."""
    asked = [question for number in quiz.numbers() for question in quiz.questions(number)]
    places = Counter(next(i for i, a in enumerate(q.answers) if a.right) for q in asked)
    assert set(places) == {0, 1, 2, 3} and max(places.values()) < len(asked) / 2
    longest = sum(max(question.answers, key=lambda a: len(a.text)).right for question in asked)
    assert longest < 0.6 * len(asked)


def test_what_a_reader_sees(capsys):
    quiz.ask_quiz("07")
    said = capsys.readouterr().out
    assert re.findall(r"^(?:(\d)\. |   ([a-d])\) )", said, re.MULTILINE)[:6] == [
        ("1", ""), ("", "a"), ("", "b"), ("", "c"), ("", "d"), ("2", "")]  # fmt: skip
    assert max(map(len, said.splitlines())) <= quiz.WIDTH
    quiz.check_quiz("07", ".....")
    assert capsys.readouterr().out == "".join(f"Question {n} is not done yet.\n" for n in range(1, 6))


@every
def test_right_wrong_and_the_misconception(number, capsys):
    quiz.check_quiz(number, letters_of(number, right=True).upper())
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(": right. ") == 5
    quiz.check_quiz(number, letters_of(number, right=False))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(": not yet. ") == 5
    for question, letter in zip(quiz.questions(number), letters_of(number, right=False), strict=True):
        assert " ".join(question.answers[quiz.LETTERS.index(letter)].reply.split()) in said


@pytest.mark.parametrize("letters", ["", "abcd", "abcdab", None, ["a"] * 5, 3])
def test_other_than_five_letters(letters, capsys):
    quiz.check_quiz("07", letters)
    assert capsys.readouterr().out.startswith("Write 5 letters")


def test_a_letter_that_is_no_answer(capsys):
    quiz.check_quiz("07", "e....")
    assert capsys.readouterr().out.startswith("Question 1: the answers are a, b, c and d, not 'e'.\n")


QUESTION = re.compile(r"^::(\d\d)\.(\d)::\[plain\](.*) \{\n((?:  [=~].*\n)+)\}$", re.MULTILINE)
PLAIN = r"(?<!\\)[~=#{}:]"


def plain(text):
    """Without backslashes; a character with a meaning has one before it."""
    assert not re.search(PLAIN, text)
    return re.sub(r"\\(.)", r"\1", text)


def test_the_command_writes_gift_that_reads_back(tmp_path, capsys):
    path = tmp_path / "out.gift"
    assert cli.main(["class", "quiz", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: the quizzes of {len(SOURCES)} notebooks\n"
    questions_of = {}
    for number, _, text, answers in QUESTION.findall(path.read_text(encoding="utf-8")):
        lines = [re.match(r"  ([=~])((?:\\.|[^#\\])*)#(.*)$", line) for line in answers.splitlines()]
        read = [quiz.Answer(plain(line[2]), line[1] == "=", plain(line[3])) for line in lines]
        questions_of.setdefault(number, []).append(quiz.Question(plain(text), read))
    assert questions_of == {number: quiz.questions(number) for number in quiz.numbers()}
    assert cli.main(["class", "quiz", str(tmp_path / "none" / "out.gift")]) == 2


def test_characters_with_a_meaning_in_gift():
    assert quiz._escaped("a = {b}: ~c # \\alpha") == "a \\= \\{b\\}\\: \\~c \\# \\\\alpha"
