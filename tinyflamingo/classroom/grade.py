"""Marks of handed-in notebooks: for each exercise right, wrong with its hint, or open.

Serves ``class grade``. The checks run here. The student's functions run in another process (`worker.py`), with limits
of time and memory and in an empty folder, and only send values. So whatever a student's code changes, prints or ends,
it changes, prints and ends there: no mark comes from it. It is no prison: that process has the rights of the user, can
read files and delete them. Not here: the checks (`checks/`).
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinyflamingo import checks
from tinyflamingo.checks.core import CheckFailed
from tinyflamingo.classroom.messages import Values, receive, send
from tinyflamingo.classroom.pack import ROOT, notebooks
from tinyflamingo.errors import UserError
from tinyflamingo.language import _
from tinyflamingo.system import end_group

SECONDS = 30  # for one exercise
MEGABYTES = 4096
LETTERS = 5_000_000  # of code in one notebook; its pictures do not count
WAITING = 4  # messages of a student's process that nobody has asked for; after these, no more are read
DAY = 86400  # seconds
START = 120  # seconds for the start of a process, on a busy machine
TIMES = 3  # a check draws new numbers at every run; right means right every time
NUMBER = re.compile(r"(?:Exercise |check_)(\d\d)[._]\d")
CALL = re.compile(r"^(check_\w+)\((\w+)\)", re.MULTILINE)


class Row(NamedTuple):
    """One exercise of one file. result: "right", "wrong" or "open"."""

    file: str
    exercise: str
    result: str
    hint: str


class Exercise(NamedTuple):
    """An exercise's number, the name of its check, and the name of the function that a student writes."""

    key: str
    check: str
    function: str


def grade(folder: Path, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Iterator[Row]:
    """The rows of all notebooks in a folder and the folders in it, each as soon as it is known."""
    if not folder.is_dir():
        raise UserError(f"cannot read {folder}: it is not a folder")
    if not 0 < seconds <= DAY:
        raise UserError(f"--seconds is the limit for one exercise: from 1 to {DAY}")
    known = exercises()
    paths = [p for p in sorted(folder.rglob("*.ipynb")) if p.is_file() and not _is_hidden(p.relative_to(folder))]
    if not paths:
        raise UserError(f"{folder} holds no notebook (.ipynb)")
    for path in paths:
        for key, result, hint in _grade_file(path, known, seconds, megabytes):
            yield Row(_shown(path.relative_to(folder)), key, result, _one_line(hint))


def _is_hidden(path):
    """Such as the copies in .ipynb_checkpoints, and what a zip made on macOS has beside every file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _shown(path):
    """A file's name in one line. Line ends, control characters and bytes that are no letters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path.as_posix())


def exercises() -> dict[str, list[Exercise]]:
    """{"07": exercises of notebook 07}, from the project's own notebooks."""
    exercises = {}
    for path in notebooks():
        cells = [cell for cell in code_cells(path) if cell["metadata"].get("tags", [""])[0] == "check"]
        calls = [(cell["metadata"]["tags"][1], CALL.search(_source(cell))) for cell in cells]
        exercises[path.name[:2]] = [Exercise(key, call[1], call[2]) for key, call in calls if call]
    return exercises


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook file. Raises `ValueError` if it is none."""
    try:
        cells = json.loads(path.read_bytes().decode("utf-8-sig"))["cells"]
        return [{"metadata": {}, **cell} for cell in cells if cell["cell_type"] == "code" and _source(cell)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(_("this file cannot be read as a notebook: save it again in Jupyter")) from error


def _source(cell) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def _grade_file(path, known, seconds, megabytes):
    """(key, result, hint) of the exercises of one file."""
    try:
        cells = [_source(cell) for cell in code_cells(path)]
    except ValueError as error:
        yield "", "wrong", str(error)
        return
    if sum(map(len, cells)) > LETTERS:
        hint = _("this notebook has more than {limit} letters of code: numbers belong in a file")
        yield "", "wrong", hint.format(limit=LETTERS)
        return
    counts = Counter(NUMBER.findall(path.read_text(encoding="utf-8-sig")))
    number = max(known, key=lambda n: (counts[n], n in path.stem.split("_")))
    if not counts[number] and number not in path.stem.split("_"):
        yield "", "open", _("no exercise of these notebooks is in this file")
        return
    with Student(cells, seconds, megabytes) as student:
        for exercise in known[number]:
            yield exercise.key, *_mark(student, exercise)


def _mark(student, exercise):
    """(result, hint) of one exercise."""
    try:
        if not student.define(exercise.function):
            return "open", _("there is no function {name} in this notebook").format(name=exercise.function)
    except CheckFailed as failed:
        return "wrong", str(failed)
    outcome = None
    for _run in range(TIMES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = getattr(checks, exercise.check).mark(student)
        if outcome.result != "right":
            break
    return outcome.result, outcome.hint


class Student:
    """A student's function, called in a process of its own; for each exercise a new one."""

    def __init__(self, cells: list, seconds: float, megabytes: int):
        self.cells, self.seconds, self.megabytes = cells, seconds, megabytes
        self.process: Any = None
        self.answers: Any = None
        self.folder: Any = None
        self.until = 0.0
        self.lost = True

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop()

    def define(self, name: str) -> bool:
        """Choose the function of this name; False if the notebook has none. Its time starts now."""
        self._stop()
        self._start()
        self.until = time.monotonic() + self.seconds
        answer = self._answer({"define": name, "cells": self.cells})
        if "error" in answer:
            raise CheckFailed(str(answer["error"]))
        defined = answer.get("defined")
        names = [n for n in defined if isinstance(n, str) and n.isidentifier()] if isinstance(defined, list) else []
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = None
        with contextlib.suppress(ValueError):
            self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in dict.fromkeys(names)])
        return "missing" not in answer

    def __call__(self, *args, **named):
        """Call the function there. Every failure of the student's code is a `CheckFailed`."""
        values = Values()
        request = {
            "call": [values.write(x, True) for x in args],
            "named": {name: values.write(x, True) for name, x in named.items()},
        }
        answer = self._answer(request)
        while "ask" in answer:
            answer = self._answer(self._reply(values, answer))
        if "open" in answer:
            raise NotImplementedError
        if "error" in answer:
            raise CheckFailed(str(answer["error"]))
        with self._losing(_("it sent something that cannot be read")):
            result = values.read(answer["done"])
            values.take_over(answer["state"])
            for words in answer["warnings"]:
                warnings.warn(str(words), RuntimeWarning, stacklevel=2)
        return result

    def _reply(self, values, question):
        """Call a function of the check for the student's code. A check that fails here ends the call."""
        with self._losing(_("it asked for something that is not there")):
            function, args = values.objects[question["ask"]], [values.read(x) for x in question["args"]]
        try:
            return {"reply": values.write(function(*args), True)}
        except CheckFailed:
            self.lost = True
            raise
        except Exception as error:
            return {"raise": f"{type(error).__name__}: {error}"}

    @contextlib.contextmanager
    def _losing(self, words):
        """An error in what was sent: the process is given up."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self.lost = True
            raise CheckFailed(_("your code could not be run to its end: {reason}.").format(reason=words)) from error

    def _answer(self, message) -> dict:
        """Send a message and wait for the answer, until the time is over."""
        if self.lost:
            raise CheckFailed(_("your code was stopped before."))
        threading.Thread(target=_send, args=(self.process.stdin, message), daemon=True).start()
        try:
            answer = self.answers.get(timeout=max(self.until - time.monotonic(), 0))
        except queue.Empty:
            self.lost = True
            hint = _("your code did not end within {seconds:g} seconds: is there a loop without an end?")
            raise CheckFailed(hint.format(seconds=self.seconds)) from None
        if answer is None:
            self.lost = True
            hint = _("your code ended the program: it calls exit, or needs too much memory, or returns too much.")
            raise CheckFailed(hint)
        return answer

    def _start(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TINYFLAMINGO_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tinyflamingo.classroom.worker", str(self.megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder.name,
            env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
            start_new_session=True,
        )
        self.answers = queue.Queue(WAITING)
        threading.Thread(target=_listen, args=(self.process.stdout, self.answers), daemon=True).start()
        self.lost = False
        ready = None
        with contextlib.suppress(queue.Empty):
            ready = self.answers.get(timeout=START)
        if ready is None:
            raise UserError("no process can be started to run the notebooks: python -m tinyflamingo doctor says more")

    def _stop(self):
        """End the process and those that it has started."""
        if self.process is None:
            return
        end_group(self.process)
        self.folder.cleanup()
        self.process = None


def _send(stream, message):
    """Write a message, in a thread: a process that does not read must not stop the marking."""
    with contextlib.suppress(OSError, ValueError):
        send(stream, message)


def _listen(stream, answers):
    """Put messages into a queue, and None when there will be no more, or none that can be read."""
    with contextlib.suppress(queue.Full):
        with contextlib.suppress(ValueError, OSError, RecursionError):
            while (message := receive(stream)) is not None:
                answers.put_nowait(message)
        answers.put_nowait(None)


def _one_line(text):
    """Without line ends and control characters: a student's code can put anything into the message of an error."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# ---------------------------------------------------------------- lines to print


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each row: file, exercise, result, hint. A spreadsheet must not take any of them for a formula."""

    class Line:
        def write(self, text):
            self.text = text

    line = Line()
    writer = csv.writer(line, lineterminator="")
    for row in rows:
        writer.writerow([f"'{text}" if text[:1] in tuple("=+-@") else text for text in row])
        yield line.text


def text_lines(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each file and each exercise, and the numbers at the end."""
    counts: Counter = Counter()
    results = {"right": _("right"), "wrong": _("wrong"), "open": _("open")}
    file = None
    for row in rows:
        if row.file != file:
            file = row.file
            yield file
        counts[row.result] += 1
        yield f"  {row.exercise or '-':6}{results[row.result]:6}{row.hint}".rstrip()
    yield _(f"{counts['right']} right, {counts['wrong']} wrong, {counts['open']} open")
