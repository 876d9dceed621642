"""Every exercise of every notebook: the solution and other right answers pass, the stub fails politely, each wrong
answer gets its hint, and none of them raises an error.
"""

import ast
import contextlib
import importlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

pytest.importorskip("nbclient")

HERE = Path(__file__).parent
TIMES = 5  # a check draws anew at every run; it must notice every time
CARD = re.compile(
    r"\A### Exercise (\d\d\.\d+) · (\S.*)\n+\*difficulty: (easy|medium|hard) · minutes: (\d+)\*\n+(\S.*)", re.DOTALL
)


@pytest.fixture(autouse=True)
def _same_draws(monkeypatch):
    """Checks draw anew, but here from the seeds 0, 1, ...: a test that passes once passes always."""
    draw, seeds = np.random.default_rng, itertools.count()
    monkeypatch.setattr(np.random, "default_rng", lambda seed=None: draw(next(seeds) if seed is None else seed))


build = load_script("notebooks/build")
SOURCES = {source.stem[:2]: source for source in build.sources()}


def exercises_of(source):
    """The numbers of the exercises in a source, in order."""
    return re.findall(r"^# %% exercise (\S+)$", source.read_text(encoding="utf-8"), re.MULTILINE)


def catalogue(number):
    """The cards of a notebook's catalogue, by key."""
    if not (HERE / f"cards_{number}.py").is_file():
        return {}
    return {card.key: card for card in importlib.import_module(f"cards_{number}").CARDS}


KEYS = [key for source in SOURCES.values() for key in exercises_of(source)]
CATALOGUE = {key: card for number in SOURCES for key, card in catalogue(number).items()}
for name in ("cards_more", "cards_strangers", "cards_edges"):
    for more in importlib.import_module(name).CARDS:
        CATALOGUE[more.key].wrong += more.wrong
        CATALOGUE[more.key].right += more.right
RIGHT = [(key, i) for key, card in CATALOGUE.items() for i in range(len(card.right))]
WRONG = [(key, i) for key, card in CATALOGUE.items() for i in range(len(card.wrong))]
each_exercise = pytest.mark.parametrize("key", KEYS)


def cells_of(key, solved):
    """{("exercise", key): code, ...} of the notebook, and its plain code cells before the exercise."""
    cells = build.read_source(SOURCES[key[:2]], solved).cells
    marked = {build.kind_of(cell): cell.source for cell in cells if cell.cell_type == "code"}
    kinds = [build.kind_of(cell) for cell in cells]
    before = cells[: kinds.index(("exercise", key))]
    return marked, [cell.source for cell in before if cell.cell_type == "code" and not build.kind_of(cell)[0]]


def take_tools(code, space):
    """Run the imports and functions of a cell, without what it computes, or functions that need that at once."""
    for node in ast.parse(code).body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef)):
            with contextlib.suppress(NameError):
                exec(ast.unparse(node), space)


def namespace_of(key, solved):
    """What the exercise's function needs: imports, functions told before, earlier exercises, and itself."""
    marked, before = cells_of(key, solved=True)
    space = {"__name__": "notebook"}
    for code in before:
        take_tools(code, space)
    for earlier in KEYS[: KEYS.index(key)]:
        if earlier[:2] == key[:2]:
            exec(marked["exercise", earlier], space)
    cells, _ = cells_of(key, solved)
    exec(cells["exercise", key], space)
    return space, cells["check", key]


@each_exercise
def test_the_solution_passes(key, capsys):
    space, call = namespace_of(key, solved=True)
    for _ in range(TIMES):
        exec(call, space)
    assert capsys.readouterr().out.count(f"Exercise {key}: right.") == TIMES


@each_exercise
def test_the_untouched_stub_fails_politely(key, capsys):
    space, call = namespace_of(key, solved=False)
    exec(call, space)
    assert capsys.readouterr().out == f"Exercise {key} is not done yet.\n"


@pytest.mark.parametrize("key, i", WRONG, ids=[f"{key}-{i}" for key, i in WRONG])
def test_a_wrong_answer_fails_with_its_own_hint(key, i):
    wrong, hint = CATALOGUE[key].wrong[i]
    for _ in range(TIMES):
        mark = CATALOGUE[key].check.mark(wrong)
        assert mark[:2] == (key, "wrong")
        assert re.search(hint, mark.hint), mark.hint


@pytest.mark.parametrize("key, i", RIGHT, ids=[f"{key}-{i}" for key, i in RIGHT])
def test_another_right_answer_passes(key, i):
    for _ in range(TIMES):
        assert CATALOGUE[key].check.mark(CATALOGUE[key].right[i]) == (key, "right", "")


NO_ANSWERS = [None, "an answer", {"a": 1}, (), [[1], [1, 2]], 1j, np.nan, object(), {1, 2}, b"bytes", len, [None]]


@each_exercise
def test_a_result_of_a_wrong_type_gets_a_sentence(key):
    for value in NO_ANSWERS:
        mark = CATALOGUE[key].check.mark(lambda *args, value=value, **kwargs: value)
        assert mark.result == "wrong"
        assert len(mark.hint) > 20 and "\n" not in mark.hint, mark.hint


@each_exercise
def test_an_answer_that_cannot_be_called_gets_a_sentence(key):
    for answer in (np.zeros(3), lambda: None):
        mark = CATALOGUE[key].check.mark(answer)
        assert mark.result == "wrong" and re.search("the function itself|cannot be called", mark.hint)


@each_exercise
def test_hints_come_one_by_one_and_the_first_does_not_hold_the_formula(key, capsys):
    check = CATALOGUE[key].check
    where, formula = check.steps
    assert 30 < len(where) and formula not in where
    wrong, _ = CATALOGUE[key].wrong[0]
    check.shown, said = 0, []
    for _ in range(3):
        check(wrong)
        said.append(capsys.readouterr().out)
    assert [where in words for words in said] == [False, True, True]
    assert [formula in words for words in said] == [False, False, True]


# What would give an exercise away; it must not stand in the two cells before or behind it. (The libary's own lines of
# notebook 07 are folded: `test_lines_that_solve_exercises_are_folded`.)
SPOILERS = {
    "01.1": r"order\[::-1\]|reversed\(order\)|visit\(",
    "02.3": r"1 / np\.std|/ .*\.std\(\)",
    "03.2": r"e\.sum\(",
    "08.4": r"1 - (np\.)?tanh|tanh²",
    "08.5": r"np\.sign|copysign",
    "11.1": r"4 ?\*? ?n|/ ?\(1 \+ z",
    "11.2": r"\.argmin\(",
}


@pytest.mark.parametrize("key", SPOILERS)
def test_the_solution_is_not_beside_the_exercise(key):
    cells = build.read_source(SOURCES[key[:2]]).cells
    place = [build.kind_of(cell) for cell in cells].index(("exercise", key))
    for cell in (*cells[max(place - 3, 0) : place], *cells[place + 2 : place + 5]):
        assert not re.search(SPOILERS[key], cell.source), cell.source


def test_lines_that_solve_exercises_are_folded():
    shown = [cell for cell in build.read_source(SOURCES["07"]).cells if "show(interleave.phi" in cell.source]
    assert [cell.metadata for cell in shown] == [build.FOLDED]


@each_exercise
def test_the_catalogue_has_wrong_answers_with_different_hints(key):
    card = CATALOGUE[key]
    assert len(card.wrong) >= 2
    assert card.check.key == key
    assert len({hint for _, hint in card.wrong}) >= 2, "a check tells mistakes apart"
    assert all(len(hint) >= 8 for _, hint in card.wrong)


def test_the_catalogue_has_no_card_too_many():
    assert sorted(CATALOGUE) == sorted(KEYS)


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda path: path.stem)
def test_cards_are_complete(source):
    """Heading with difficulty and minutes, then the exercise, then its check, which is an import and a call."""
    cells = build.read_source(source, solved=True).cells
    keys = []
    for place, cell in enumerate(cells):
        kind, key = build.kind_of(cell)
        if kind == "exercise":
            card = CARD.match(cells[place - 1].source)
            assert card and card[1] == key, f"{key}: the card above it"
            assert build.kind_of(cells[place + 1]) == ("check", key)
            name = f"check_{key.replace('.', '_')}_"
            call = cells[place + 1].source
            assert re.fullmatch(rf"from tinyflamingo\.checks import ({name}\w+)\n\s*\1\(\w+\)", call), call
            keys.append(key)
    number = source.stem[:2]
    assert keys == [f"{number}.{k + 1}" for k in range(len(keys))]
    headings = [c.source for c in cells if c.cell_type == "markdown" and c.source.startswith("### Exercise")]
    assert len(headings) == len(keys) == sum(build.kind_of(cell)[0] == "check" for cell in cells)
    if number != "00":
        assert 2 <= len(keys) <= 5
