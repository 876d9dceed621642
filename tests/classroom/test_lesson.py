"""What the notebooks take from `tinyflamingo.classroom`."""

import subprocess
import sys

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo import ops
from tinyflamingo.classroom import ask, clip, picture, show, sliders
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_single
from tinyflamingo.ops import fast


def test_pictures_and_clips():
    seen = picture(np.random.default_rng(1), "circle", "red", "left", "small")
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(seen, draw_scene(rng, sample_single(rng, (("circle", "red"),), "small", "left")))
    moving = clip(np.random.default_rng(1), "moves left", frames=5)
    assert moving.shape == (5, *seen.shape) and moving.dtype == np.uint8
    assert (moving[0] != moving[-1]).any()


def test_ask_continues_a_prompt():
    model, seen = tinyflamingo.load(), picture(np.random.default_rng(1), "circle", "red")
    said = ask(model, seen, "Output:", max_tokens=3)
    assert said == tinyflamingo.complete(model, [seen, "Output:"], max_tokens=3)["text"] and said


def test_show_prints_lines_and_their_file(capsys):
    show(ops.check_grad, fast._rms_norm, fast.kernels.rms_norm_forward)  # a function, a primitive, a kernel
    said = capsys.readouterr().out
    assert said.startswith("# tinyflamingo/ops/check.py: check_grad\n\ndef check_grad(")
    assert "# tinyflamingo/ops/fast.py: _rms_norm\n" in said
    assert "def rms_norm_forward(" in said


def test_sliders_call_the_function_when_they_are_turned(monkeypatch):
    pytest.importorskip("ipywidgets")
    shown, calls = [], []
    monkeypatch.setattr("IPython.display.display", shown.append)
    sliders(lambda a=3, b="x": calls.append((a, b)), a=(1, 9), b=["x", "y"])
    (box,) = shown
    a, b, _ = box.children
    assert (a.value, b.value) == (3, "x") and not a.continuous_update
    a.value = 7
    b.value = "y"
    assert calls[-2:] == [(7, "x"), (7, "y")]


def test_the_module_is_light():
    """The process that runs a student's code imports it too."""
    code = "import sys, tinyflamingo.classroom; print('numba' in sys.modules, 'tinyflamingo.model' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
