"""Figures: the same whatever the user's settings are, and a failure is one line that leaves no half of a file."""

import json
import os
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tinyflamingo import figures
from tinyflamingo.data.readers.check import _sheet
from tinyflamingo.demo import Panel, Said, draw_panels
from tinyflamingo.errors import UserError
from tinyflamingo.figures import write_figure
from tinyflamingo.training import figures as training_figures
from tinyflamingo.training.figures import draw_run


def line():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    figure.suptitle("a 喵 line")  # letters that the font does not have
    return figure


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_settings_of_the_user_change_nothing(tmp_path, suffix, recwarn):
    """`text.usetex` would need LaTeX."""
    stable = {"metadata": {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)}
    with matplotlib.rc_context({"svg.hashsalt": "x"}):
        users = {
            "text.usetex": True,
            "axes.facecolor": "red",
            "figure.dpi": 30,
            "savefig.bbox": "tight",
            "lines.linewidth": 9,
        }
        matplotlib.rcParams.update(users)
        before = dict(matplotlib.rcParams)
        assert write_figure(tmp_path / f"users{suffix}", line, **stable)
        assert dict(matplotlib.rcParams) == before and not recwarn.list
    assert write_figure(tmp_path / f"plain{suffix}", line, **stable)
    if suffix != ".svg":  # its names are random
        assert (tmp_path / f"users{suffix}").read_bytes() == (tmp_path / f"plain{suffix}").read_bytes()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline_that_is_missing", "no-such-backend", "tkagg"])
def test_no_backend_is_needed(tmp_path, backend):
    """As in the children of a notebook. The variable and pyplot's choice stay as they are."""
    program = """
import os, sys
from tinyflamingo import figures
from tinyflamingo.data.readers.check import _sheet
from tinyflamingo.demo import Panel, Said, draw_panels
from tinyflamingo.errors import UserError
from tinyflamingo.figures import write_figure
def draw():
    from matplotlib.figure import Figure
    return Figure()
write_figure(sys.argv[1], draw)
import json, matplotlib
chosen = str(matplotlib.rcParams._get("backend"))
print(json.dumps([os.environ["MPLBACKEND"], "matplotlib.pyplot" in sys.modules, chosen]))
"""
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.png"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr and (tmp_path / "a.png").stat().st_size > 100
    name, pyplot, chosen = json.loads(done.stdout)
    assert name == backend and not pyplot and (chosen == backend or backend == "no-such-backend")


def broken():
    raise RuntimeError("latex\nis missing")


def half(figure=None):
    figure = Figure()
    figure.savefig = lambda file, **options: (file.write(b"half"), broken())
    return figure


@pytest.mark.parametrize("draw", [broken, half])
def test_a_failure_keeps_the_old_file(tmp_path, draw):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(UserError, match="cannot draw .*a.png: RuntimeError: latex"):
        write_figure(tmp_path / "a.png", draw)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_no_figure_writes_no_file(tmp_path):
    assert not write_figure(tmp_path / "a.png", lambda: None) and not list(tmp_path.iterdir())


# ---- letters of other writings ---------------------------------------------------------------------

CAPTION = "一张红色的图片, café"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a text; gives the texts of the figure. A box in place of a letter is a warning of Matplotlib: an error."""
    figures.find_fonts.cache_clear()
    monkeypatch.setattr(figures.warnings, "simplefilter", lambda *_: None)

    def draw(text, sheet=False):
        made = _sheet([(None, text)] * 6) if sheet else Figure()
        made.text(0, 0, "" if sheet else text)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Glyph")
            assert write_figure(tmp_path / "a.png", lambda: made)
        return [text.get_text() for text in made.findobj(Text) if text.get_text()]

    yield draw
    figures.find_fonts.cache_clear()


@pytest.mark.parametrize("sheet", [False, True])
def test_letters_that_no_font_has_are_escapes_and_one_line_says_so(drawn, monkeypatch, capsys, sheet):
    monkeypatch.setattr(figures, "_fonts", list)
    texts = drawn(CAPTION, sheet)
    assert "".join(texts[0].split()).startswith(r"\u4e00\u5f20\u7ea2\u8272") and texts[0].endswith("café")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no font here has 7 letters of the figure, such as 一" in error


def test_chinese_letters_are_drawn_if_a_font_has_them(drawn, capsys):
    if not any("一" in figures._letters_of(path) for path in figures._fonts()):
        pytest.skip("no font here has Chinese letters")
    assert drawn(CAPTION) == [CAPTION] and capsys.readouterr().err == ""


def test_a_font_that_cannot_be_read_is_no_font(drawn, monkeypatch, tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    monkeypatch.setattr(figures, "_fonts", lambda: [str(tmp_path / "a.ttf"), str(tmp_path / "missing.ttf")])
    assert drawn("一") == [r"\u4e00"]


def test_labels_are_in_the_language_of_the_reader_where_a_font_has_their_letters(monkeypatch, capsys):
    assert figures.label("loss") == "loss"
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", "zh")
    if not find_missing("损失"):
        assert figures.label("loss") == "损失" and figures.label("stage: language") == "阶段：language"
    monkeypatch.setattr(figures, "_fonts", list)
    assert figures.label("loss") == "loss" and figures.label("no catalogue has this") == "no catalogue has this"
    assert capsys.readouterr().err == ""


def find_missing(text):
    return figures._search_fonts(frozenset(text))[1]


def test_figures_of_a_chinese_reader_have_no_boxes(tmp_path, monkeypatch, caplog):
    """Neither a warning of Matplotlib about a letter, nor a line of its log about a font."""
    monkeypatch.setenv("TINYFLAMINGO_LANGUAGE", "zh")
    figures.find_fonts.cache_clear()
    monkeypatch.setattr(figures.warnings, "simplefilter", lambda *_: None)
    records = [
        {"stage": "flamingo", "step": step, "loss": 2.0, "gates": {"xattn_0/alpha_xattn": 0.1}} for step in (0, 1)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    panel = Panel("a caption", [np.zeros((4, 4, 3), np.uint8), "Output:", Said("a red circle.", "a blue circle.")])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        draw_run(tmp_path)
        draw_panels([panel], tmp_path / "demo.png")
    assert {path.name for path in tmp_path.glob("*.png")} == {"losses.png", "gates.png", "demo.png"}
    assert not caplog.records


@pytest.mark.parametrize("first, begins", [((0.46, 0.46), -1), ((0.5, 0.3), 0)])
def test_only_gates_that_were_closed_begin_at_zero(tmp_path, first, begins):
    """A run that goes on from a checkpoint begins with open gates."""
    gates = [f"xattn_{i}/alpha_{kind}" for i in range(2) for kind in ("xattn", "dense")]
    lines = [
        {"stage": "flamingo", "step": 10 * i, "loss": 1.0, "gates": dict(zip(gates, first * 2, strict=True))}
        for i in range(2)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = [line for axis in training_figures._gates(tmp_path).axes for line in axis.lines]
    assert drawn and all(line.get_xdata()[0] == begins for line in drawn)
    assert all((line.get_ydata()[0] == 0) == (begins < 0) for line in drawn)
