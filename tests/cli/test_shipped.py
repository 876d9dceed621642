"""The shipped checkpoint: small, documented, and able to do the applications of the chapter."""

import re
import time

import pytest
from PIL import Image, ImageDraw

import tinyflamingo
from tinyflamingo.checkpoint import shipped_checkpoint
from tinyflamingo.data.images import load_picture
from tinyflamingo.demo import Said, run_demo


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


def test_it_is_small():
    sizes = {p.name: p.stat().st_size for p in shipped_checkpoint().rglob("*") if p.is_file()}
    assert {"weights.npz", "model.json", "MODEL_CARD.md"} <= set(sizes)
    assert sum(sizes.values()) <= 8_000_000


def test_the_card_describes_training_and_limits(model):
    card = (shipped_checkpoint() / "MODEL_CARD.md").read_text()
    assert "python -m tinyflamingo train" in card and re.search(r"[Ss]eed", card)
    assert str(model.info["seed"]) in card and model.info["versions"]["numpy"] in card
    assert "Limits" in card and "MIT" in card
    for name, row in model.info["metrics"]["tasks"].items():
        assert name in card and f"{row['score']:.3f}"[:4] in card
    assert model.info["preset"] == "toy"


def test_demo_answers_every_panel_in_seconds(model, tmp_path, capsys):
    began = time.process_time()
    panels = run_demo(model, tmp_path / "demo.png")
    assert time.process_time() - began < 30
    assert len(panels) == 6
    for panel in panels:
        said = [item for item in panel.items if isinstance(item, Said)]
        assert said and all(item.text for item in said)
    assert Image.open(tmp_path / "demo.png").size[0] > 500
    said = [item for panel in panels for item in panel.items if isinstance(item, Said)]
    wrong = [item for item in said if item.text != item.right]
    assert len(wrong) < len(said) / 2
    assert capsys.readouterr().out.count("(right: ") == len(wrong)


def test_demo_from_the_command_line(tmp_path, command):
    code, out, err = command("demo", "--out", tmp_path / "demo.png")
    assert (code, err) == (0, "") and (tmp_path / "demo.png").exists() and "figure: " in out


def test_doctor_finds_no_error(command, monkeypatch):
    monkeypatch.setenv("TINYFLAMINGO_THREADS", "1")
    code, out, err = command("doctor")
    assert (code, err) == (0, "") and "everything works" in out and "workers in training: 1;" in out


@pytest.mark.parametrize("ground", ["white", "black", "lightgrey"])
def test_a_red_circle_from_another_program_is_named(ground, tmp_path, model, command):
    picture = Image.new("RGB", (200, 200), ground)
    ImageDraw.Draw(picture).ellipse((60, 60, 140, 140), fill="red")
    picture.save(tmp_path / "circle.png")
    code, out, err = command("complete", "<image>Output:", tmp_path / "circle.png")
    assert (code, out, err) == (0, "a red circle.\n", "")
    assert tinyflamingo.complete(model, [load_picture(tmp_path / "circle.png"), "Output:"])["text"] == "a red circle."
