"""Commands that must work: every kind of picture, video, all ways of decoding, and the other commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import tinyflamingo
from tinyflamingo import cli
from tinyflamingo.bench import run as bench_run
from tinyflamingo.checkpoint import save_checkpoint
from tinyflamingo.evaluation.tasks import TASKS
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

FORMATS = {
    "rgb.png": lambda im: (im, {}),
    "photo.jpg": lambda im: (im, {"quality": 95}),
    "cmyk.jpg": lambda im: (im.convert("CMYK"), {}),
    "cmyk.tiff": lambda im: (im.convert("CMYK"), {}),
    "palette.png": lambda im: (im.quantize(16), {}),
    "palette.gif": lambda im: (im.quantize(16), {}),
    "clear_palette.png": lambda im: (im.quantize(16), {"transparency": 0}),
    "sixteen.png": lambda im: (Image.fromarray(np.asarray(im.convert("L")).astype(np.uint16) * 257), {}),
    "sixteen.tiff": lambda im: (Image.fromarray(np.asarray(im.convert("L")).astype(np.uint16) * 257), {}),
    "alpha.png": lambda im: (im.convert("RGBA"), {}),
    "grey_alpha.png": lambda im: (im.convert("LA"), {}),
    "grey.png": lambda im: (im.convert("L"), {}),
    "one_bit.png": lambda im: (im.convert("1"), {}),
    "web.webp": lambda im: (im, {}),
    "plain.bmp": lambda im: (im, {}),
    "wide.png": lambda im: (im.resize((300, 7)), {}),
    "one_pixel.png": lambda im: (im.resize((1, 1)), {}),
}
COMMANDS = (
    "train", "demo", "complete", "explore", "evaluate", "ablate", "report", "bench", "params", "convert", "parity",
    "data", "calibrate", "class", "docs", "doctor",
)  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_works(name, tmp_path, media, checkpoint, command):
    picture, options = FORMATS[name](Image.open(media / "red.png"))
    picture.save(tmp_path / name, **options)
    code, out, err = command("complete", "<image>a", tmp_path / name, "--checkpoint", checkpoint, "--json")
    assert (code, err) == (0, "") and out.endswith("\n")


def test_an_exif_rotated_picture_is_turned_upright(tmp_path, media, checkpoint, command):
    upright = Image.open(media / "red.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    said = [
        command("complete", "<image>a", path, "--checkpoint", checkpoint, "--json")[1]
        for path in (media / "red.png", tmp_path / "turned.png")
    ]
    assert said[0] == said[1]


def test_a_video_works(media, checkpoint, command):
    code, out, err = command(
        "complete", "<video>Output:", media / "clip.mp4", "--checkpoint", checkpoint, "--json", "--max-tokens", 3
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["prompt_tokens"][:2] == ["<BOS>", "<image>"]


def test_json_has_its_keys_and_phi_counts_the_media(media, checkpoint, command):
    code, out, err = command(
        "complete", "x<image>a<EOC><video>b<image>", media / "red.png", media / "clip.mp4", media / "other.png",
        "--checkpoint", checkpoint, "--json", "--max-tokens", 4,
    )  # fmt: skip
    assert (code, err) == (0, "") and out.count("\n") == 1
    answer = json.loads(out)
    keys = {"text", "tokens", "log_probs", "phi", "prompt_tokens", "finished", "probability", "threshold", "unlike"}
    assert set(answer) == keys
    tokens = answer["prompt_tokens"]
    assert answer["phi"] == np.cumsum([t == "<image>" for t in tokens]).tolist() and answer["phi"][-1] == 3
    places = [i for i, t in enumerate(tokens) if t == "<image>"]
    assert len(places) == 3 and all(tokens[i - 1] == "<EOC>" for i in places) and tokens.count("<EOC>") == 3
    assert len(answer["tokens"]) == len(answer["log_probs"]) <= 4 and max(answer["log_probs"]) <= 0


def test_an_answer_that_is_cut_is_not_silent(media, command):
    line = ("complete", "<image>Output:", media / "red.png")
    cut, whole = (json.loads(command(*line, "--json", "--max-tokens", n)[1]) for n in (1, 24))
    assert not cut["finished"] and whole["finished"] and whole["tokens"][:1] == cut["tokens"]
    code, out, err = command(*line, "--max-tokens", 1)
    assert code == 0 and out.strip() == cut["text"] and err.count("\n") == 1
    assert "not finished after 1 tokens" in err and "--max-tokens" in err
    assert command(*line)[2] == ""


def test_files_may_come_after_options(media, checkpoint, command):
    line = ["--checkpoint", checkpoint, "--max-tokens", 2]
    last = command("complete", "<image>a", *line, media / "red.png")
    assert last == command("complete", "<image>a", media / "red.png", *line)
    assert last == command("complete", *line, "<image>a", media / "red.png") and last[0] == 0
    split = command("complete", "<image>a<image>", media / "red.png", *line, media / "other.png")
    assert split == command("complete", "<image>a<image>", media / "red.png", media / "other.png", *line)


def test_three_beams_find_a_completion_that_is_at_least_as_likely(media, checkpoint, command):
    def score(*more):
        line = ("complete", "<image>a", media / "red.png", "--checkpoint", checkpoint, "--json", "--max-tokens", 4)
        code, out, err = command(*line, *more)
        assert (code, err) == (0, "")
        return sum(json.loads(out)["log_probs"])

    assert score("--beams", 3) >= score() - 1e-4


def test_sampling_repeats_with_its_seed(media, checkpoint, command):
    def said(seed):
        line = ("complete", "<image>a", media / "red.png", "--checkpoint", checkpoint, "--max-tokens", 8, "--json")
        code, out, err = command(*line, "--temperature", 1.5, "--top-k", 200, "--top-p", 0.99, "--seed", seed)
        assert (code, err) == (0, "")
        return out

    assert said(1) == said(1) and said(1) != said(2)
    assert said(10**90)


@pytest.mark.parametrize("option", [("--top-k", 200), ("--top-p", 0.99)])
def test_a_cut_alone_samples_at_temperature_1(option, media, checkpoint, command):
    line = ("complete", "<image>a", media / "red.png", "--checkpoint", checkpoint, "--max-tokens", 8, *option)
    assert command(*line) == command(*line, "--temperature", 1)
    assert command(*line, "--seed", 1) != command(*line, "--seed", 2)


def test_a_huge_context_of_text_alone_works(checkpoint, command):
    code, out, err = command("complete", "the dog " * 100, "--checkpoint", checkpoint, "--json", "--max-tokens", 1)
    assert (code, err) == (0, "")


def test_unicode_goes_in_and_comes_out(checkpoint, command):
    code, out, err = command("complete", "ein Döner 🦩 ▁", "--checkpoint", checkpoint, "--json", "--max-tokens", 1)
    assert (code, err) == (0, "") and json.loads(out)["prompt_tokens"][0] == "<BOS>"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_stdout_lacks_are_escaped(encoding, checkpoint):
    line = [sys.executable, "-m", "tinyflamingo", "complete", "a \u2581", "--checkpoint", str(checkpoint)]
    env, root = {**os.environ, "PYTHONIOENCODING": encoding}, Path(cli.__file__).parents[2]
    for more in ([], ["--json"]):
        done = subprocess.run(line + more, capture_output=True, cwd=root, env=env)
        assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert any("\u2581" in token for token in json.loads(done.stdout.decode(encoding))["prompt_tokens"])


# ---- evaluate --------------------------------------------------------------------------------


def test_evaluate_writes_its_report(tmp_path, checkpoint, command):
    line = ("evaluate", "--checkpoint", checkpoint, "--queries", 3, "--seed", 5)
    code, out, err = command(*line, "--json", tmp_path / "report.json")
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"tasks", "checkpoint", "seconds"} <= set(report) and report["checkpoint"] == str(checkpoint)
    assert set(report["tasks"]) == {"zero_shot_classification", *TASKS}
    for name, row in report["tasks"].items():
        assert set(row) == {"metric", "score", "ci95", "n"} and len(row["ci95"]) == 2 and row["n"] == 3
        assert name in out
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_evaluate_runs_only_the_given_tasks(tmp_path, checkpoint, command):
    line = ("evaluate", "--checkpoint", checkpoint, "--queries", 2, "--task", "vqa", "--task", "caption")
    assert command(*line, "--json", tmp_path / "a.json")[0] == 0
    assert set(json.loads((tmp_path / "a.json").read_text())["tasks"]) == {"vqa", "caption"}


# ---- bench -----------------------------------------------------------------------------------


def test_bench_writes_its_report(tmp_path, command, monkeypatch):
    monkeypatch.setattr(bench_run, "milliseconds", lambda sides, rounds: [2.0, 3.0][: len(sides)])
    line = ("bench", "--only", "xattn_1", "--only", "import", "--threads", 1, "--json", tmp_path / "times.json")
    code, out, err = command(*line)
    assert (code, err) == (0, "") and "xattn_1" in out
    report = json.loads((tmp_path / "times.json").read_text())
    assert set(report["lines"]) == {"xattn_1", "import"} and report["lines"]["import"]["ours_ms"] == 2.0
    assert {"processor", "cores", "versions", "engine"} <= set(report["machine"])
    assert [p.name for p in tmp_path.iterdir()] == ["times.json"]


# ---- the rest --------------------------------------------------------------------------------


def test_params(tmp_path, command):
    code, out, err = command("params", "toy", "--json", tmp_path / "toy.json")
    assert (code, err) == (0, "") and "vision encoder" in out and "frozen" in out
    report = json.loads((tmp_path / "toy.json").read_text())
    assert report["preset"] == "toy" and report["parts"]["total"]["parameters"] > 1_000_000
    assert f"{report['parts']['resampler']['parameters']:,d}" in out


def test_params_of_a_model_of_the_paper(tmp_path, command):
    code, out, err = command("params", "flamingo-80b", "--json", tmp_path / "80b.json")
    assert (code, err) == (0, "") and "paper: 435M" in out and "flop" not in out
    report = json.loads((tmp_path / "80b.json").read_text())
    assert report["parts"]["total"]["printed"] == "80B" and report["parts"]["total"]["parameters"] > 8e10


def test_costs_of_a_preset(tmp_path, command):
    code, out, err = command("params", "smoke", "--costs", "--json", tmp_path / "smoke.json")
    costs = json.loads((tmp_path / "smoke.json").read_text())["costs"]
    assert (code, err) == (0, "") and "a forward pass" in out and "GFLOP/s" in out
    assert costs["forward_seconds"] == pytest.approx(costs["forward_flops"] / costs["gflops"] / 1e9)


def test_version_and_help(command):
    assert command("--version") == (0, f"{tinyflamingo.__version__}\n", "")
    code, out, err = command("--help")
    assert (code, err) == (0, "") and all(c in out for c in COMMANDS)
    for name in COMMANDS:
        code, out, err = command(name, "--help")
        assert (code, err) == (0, "") and "usage" in out


def test_a_demo_without_its_figure_fails_with_one_line(tmp_path, checkpoint, command, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    code, _, err = command("demo", "--checkpoint", checkpoint, "--out", tmp_path / "a.png")
    assert (code, err.count("\n")) == (2, 1) and "cannot draw" in err and not list(tmp_path.iterdir())


def test_demo_draws_a_figure(tmp_path, checkpoint, command):
    code, out, err = command("demo", "--checkpoint", checkpoint, "--out", tmp_path / "a.png")
    assert (code, err) == (0, "") and f"figure: {tmp_path / 'a.png'}" in out
    assert Image.open(tmp_path / "a.png").size[0] > 500


def test_ablations_and_their_report(tmp_path, tokenizer, command):
    model = untrained(np.random.default_rng(0), get_preset("smoke").config, tokenizer)
    model.info = {"preset": "smoke", "seed": 0}
    save_checkpoint(model, tmp_path / "checkpoint")
    line = ("--checkpoint", tmp_path / "checkpoint", "--json", tmp_path / "ablations.json", "--seeds", 1, "--steps", 1)
    code, out, err = command("ablate", "--only", "every_2nd", *line)
    assert (code, err) == (0, "") and "undecided" in out
    assert list(json.loads((tmp_path / "ablations.json").read_text())["rows"]) == ["baseline", "every_2nd"]
    code, out, err = command("report", tmp_path / "ablations.json", "--out", tmp_path / "results.md")
    assert (code, err) == (0, "") and "results.md is written; figures: 1" in out
    assert "every 2nd decoder block" in (tmp_path / "results.md").read_text()


def test_train_from_the_command_line(tmp_path, command):
    code, out, _ = command("train", "--preset", "smoke", "--out", tmp_path / "run")  # the progress bar is on stderr
    assert code == 0 and str(tmp_path / "run") in out
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"tasks", "checkpoint", "seconds", "stages"} <= set(metrics)
    assert set(metrics["tasks"]) == {"zero_shot_classification", *TASKS}
    assert set(metrics["stages"]) == {"contrastive", "language", "flamingo", "evaluation"}
    line = ("complete", "what", "--max-tokens", 3, "--json", "--checkpoint")
    code, out, err = command(*line, tmp_path / "run/checkpoint")
    assert (code, err) == (0, "")
    assert command(*line, tmp_path / "run") == (code, out, err)  # the folder of the run is enough
    code, out, err = command("evaluate", "--checkpoint", tmp_path / "run", "--queries", 1, "--task", "vqa")
    assert (code, err) == (0, "") and "vqa" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("line", [("params", "smoke"), ("--help",), ("--version",), ("params", "--help")])
def test_a_full_disk_behind_stdout_is_one_line(line):
    root, env = Path(cli.__file__).parents[2], {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "tinyflamingo", *line]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=root, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


@pytest.mark.parametrize("line, file", [
    (("evaluate", "--queries", "1", "--task", "vqa", "--json"), "a.json"), (("demo", "--out"), "a.png")
])  # fmt: skip
def test_a_reader_that_closes_early_loses_no_file(tmp_path, checkpoint, line, file):
    line = [sys.executable, "-m", "tinyflamingo", *line, str(tmp_path / file), "--checkpoint", str(checkpoint)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(cli.__file__).parents[2], env=env
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141 and (tmp_path / file).stat().st_size > 100


def test_a_reader_that_closes_early_gives_no_traceback():
    line = [sys.executable, "-m", "tinyflamingo", "params", "smoke"]
    root = Path(cli.__file__).parents[2]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141
