"""`one_file.py` against the package: the same words and logits; and what the file promises about itself."""

import ast
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyflamingo
from tinyflamingo import one_file, ops
from tinyflamingo.checkpoint import save_checkpoint, shipped_checkpoint
from tinyflamingo.data.images import load_picture, prepare_picture
from tinyflamingo.data.items import EOC
from tinyflamingo.data.prompt import read_prompt
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import ACTIONS, draw_clip, draw_scene, pick, sample_clip, sample_scene
from tinyflamingo.data.video import load_video
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
)
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants.ablations import PlacedXattnConfig
from tinyflamingo.variants.registry import untrained

SOURCE = Path(one_file.__file__)
TREE = ast.parse(SOURCE.read_text(encoding="utf-8"))
ROOT = SOURCE.parents[1]
CLOSE = 1e-4  # largest difference of logits


# ---------------------------------------------------------------- both models, asked alike


@pytest.fixture(scope="module")
def ours():
    return one_file.load()


@pytest.fixture(scope="module")
def theirs():
    return tinyflamingo.load()


def text_of_package(model, items, max_tokens=24):
    return tinyflamingo.complete(model, items, max_tokens)["text"]


def text_of_one_file(model, items, max_tokens=24):
    return one_file.complete(model, translated(items), max_tokens)


def logits_of_package(model, items):
    """At the prompt's last position, (V + 1,)."""
    side = model.config.vision.side
    sequence = encode_document([fitted(item, side) for item in items], model.tokenizer, complete=False)
    batch = make_batch([sequence])
    visual = encode_and_resample(model, batch.media)
    return flamingo(model.params, model.frozen, batch.tokens, batch.phi, visual, model.config)[0, -1]


def logits_of_one_file(model, items):
    tokens, media = one_file.interleave(translated(items), model["tokenizer"])
    return one_file.flamingo(model, tokens, one_file.encode_and_resample(model, media))[-1]


def translated(items):
    """The one file has its own `EOC`."""
    return [one_file.EOC if item is EOC else item for item in items]


def fitted(item, side):
    if not isinstance(item, np.ndarray):
        return item
    return prepare_picture(item, side) if item.ndim == 3 else np.stack([prepare_picture(f, side) for f in item])


def distance(ours, theirs, items):
    return np.abs(logits_of_one_file(ours, items) - logits_of_package(theirs, items)).max()


# ---------------------------------------------------------------- prompts


def scene(rng, side=32):
    return draw_scene(rng, sample_scene(rng), side)


def clip(rng, frames, side=32):
    return draw_clip(rng, sample_clip(rng, action=pick(rng, ACTIONS)), frames, side)


def caption(rng, seed):
    return [scene(rng), "Output:"]


def question(rng, seed):
    return [scene(rng), say.ask(("color", "shape", "number", "size", "position", "sides")[seed % 6])]


def clip_of_1_to_12_frames(rng, seed):
    return [clip(rng, 1 + seed % 12), say.ask("action")]


def few_shots(rng, seed):
    words = [f"{w}." for w in rng.choice(say.NEW_WORDS, 2, replace=False)]
    shots = [item for i in range(1 + seed % 6) for item in (scene(rng), words[i % 2])]
    return [*shots, scene(rng)]


def dialogue(rng, seed):
    return [scene(rng), "Output: a red circle.", say.ask("size"), "large.", say.ask("animal")]


def text_before_the_first_picture(rng, seed):
    return [say.caption(sample_scene(rng)), scene(rng), "Output:"]


def text_alone(rng, seed):
    words = say.caption(sample_scene(rng)).split()
    return [" ".join(words[: 1 + seed % len(words)])]


def consecutive_pictures(rng, seed):
    return [*(scene(rng) for _ in range(2 + seed % 3)), "Output:"]


def picture_and_clip(rng, seed):
    return [scene(rng), "Output: a blue star.", clip(rng, 2 + seed % 9), say.ask("action")]


def picture_of_another_size(rng, seed):
    return [scene(rng, int(rng.integers(9, 120))), "Output:"]


def picture_that_is_not_square(rng, seed):
    height, width = rng.integers(5, 300, 2)
    large = scene(rng, 64).repeat(5, 0).repeat(5, 1)
    return [large[:height, :width], "Output:"]


def clip_that_is_not_square(rng, seed):
    return [clip(rng, 1 + seed % 10, 50)[:, : 25 + 2 * seed, 3:], say.ask("action")]


def eoc_between(rng, seed):
    return [scene(rng), "Output: a red circle.", EOC, *([EOC] * (seed % 2)), "a blue"]


def strings_with_marks(rng, seed):
    return [scene(rng), " <image> <EOC>", "\u2581 \x1a\x1a1 \n", "", " \n ", "  a é 图 Output: "]


KINDS = (
    caption,
    question,
    clip_of_1_to_12_frames,
    few_shots,
    dialogue,
    text_before_the_first_picture,
    text_alone,
    consecutive_pictures,
    picture_and_clip,
    picture_of_another_size,
    picture_that_is_not_square,
    clip_that_is_not_square,
    eoc_between,
    strings_with_marks,
)
SEEDS = range(12)
every_prompt = [pytest.param(kind, seed, id=f"{kind.__name__}-{seed}") for kind in KINDS for seed in SEEDS]


def prompt(kind, seed):
    return kind(np.random.default_rng([KINDS.index(kind), seed]), seed)


@pytest.mark.parametrize("kind, seed", every_prompt)
def test_text_and_logits_are_those_of_the_package(kind, seed, ours, theirs):
    items = prompt(kind, seed)
    assert text_of_one_file(ours, items) == text_of_package(theirs, items)
    assert distance(ours, theirs, items) < CLOSE


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_it_stops_after_max_tokens_as_the_package_does(max_tokens, ours, theirs):
    items = prompt(caption, 0)
    assert text_of_one_file(ours, items, max_tokens) == text_of_package(theirs, items, max_tokens)


def test_a_mark_inside_a_string_is_text(ours):
    tokens, media = one_file.interleave(["<image> <EOC>"], ours["tokenizer"])
    assert media == [] and one_file.IMAGE not in tokens and ours["tokenizer"].get_piece_size() not in tokens


# ---------------------------------------------------------------- the comparison notices mistakes

MISTAKES = {
    "phi one too small": ("phi_of", lambda phi_of: lambda tokens: phi_of(tokens) - 1),
    "phi of the coming picture": ("phi_of", lambda phi_of: lambda tokens: np.minimum(phi_of(tokens) + 1, 2)),
    "every token sees every picture": ("attend", lambda attend: lambda scores, v, visible=True: attend(scores, v)),
    "gates of 1": ("gated_xattn_dense", lambda block: lambda p, *rest: block(p | {"alpha_xattn": np.inf}, *rest)),
    "no gated feed-forward": (
        "gated_xattn_dense",
        lambda block: lambda p, *rest: block(p | {"alpha_dense": np.float32(0)}, *rest),
    ),
    "frames in the wrong order": ("resampler", lambda f: lambda p, features, config: f(p, features[::-1], config)),
    "a norm 0.05 % too small": ("rms_norm", lambda norm: lambda x, gain: norm(x, gain) * np.float32(0.9995)),
    "pictures stretched to the square": (
        "fit",
        lambda fit: lambda image, side: np.asarray(image.resize((side, side), Image.Resampling.BOX)),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_noticed(mistake, ours, theirs, monkeypatch):
    rng = np.random.default_rng(4)
    items = ["a green ring.", scene(rng)[4:], "Output: a red circle.", clip(rng, 5), say.ask("action")]
    assert distance(ours, theirs, items) < CLOSE
    name, spoil = MISTAKES[mistake]
    monkeypatch.setattr(one_file, name, spoil(getattr(one_file, name)))
    assert distance(ours, theirs, items) > 10 * CLOSE


# ---------------------------------------------------------------- other models than the one that ships


def other_config():
    """Groups of channels, several blocks a stage, odd grids, gated blocks at 1 and 3 of 5, all widths different."""
    return FlamingoConfig(
        vision=VisionConfig(stem=((4, 2), (8, 1)), stages=((8, 1, 1), (16, 3, 2)), group_size=2, width=14, side=18),
        text_tower=TextTowerConfig(vocab_size=662, width=10, layers=1, heads=2),
        resampler=ResamplerConfig(input_width=14, width=14, layers=3, heads=2, key_size=3, latents=5, frames=3),
        language=LanguageConfig(vocab_size=662, width=12, layers=5, heads=3, key_size=4, ffw_multiplier=2),
        xattn=PlacedXattnConfig(heads=2, key_size=5, every=2, start=1, ffw_multiplier=3),
    )


@pytest.fixture(scope="module")
def other_folder(theirs, tmp_path_factory):
    """A checkpoint with random weights: no gain is 1, no bias and no gate is 0."""
    rng = np.random.default_rng(0)
    model = untrained(rng, other_config(), theirs.tokenizer)
    for part in ("params", "frozen"):
        leaves = named_leaves(getattr(model, part)).items()
        noisy = {name: x + (0.2 * rng.standard_normal(x.shape)).astype(np.float32) for name, x in leaves}
        setattr(model, part, from_named_leaves(noisy))
    folder = tmp_path_factory.mktemp("checkpoint") / "other"
    save_checkpoint(model, folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_another_checkpoint_gives_the_logits_of_the_package(kind, other_folder):
    ours, theirs = one_file.load(other_folder), tinyflamingo.load(other_folder)
    items = prompt(kind, 3)
    with ops.use("reference"):  # nothing has to be compiled for these sizes
        assert distance(ours, theirs, items) < CLOSE
    assert np.abs(logits_of_one_file(ours, items)).max() > 1


def test_numbers_that_overflow_give_no_answer(theirs, tmp_path):
    """The weights are finite, so the checkpoint loads."""
    large = from_named_leaves({name: x * np.float32(1e30) + 1e30 for name, x in named_leaves(theirs.params).items()})
    save_checkpoint(dataclasses.replace(theirs, params=large), tmp_path / "large")
    line = [sys.executable, "-m", "tinyflamingo.one_file", "<image>Output:", ROOT / "docs/examples/red_circle.png"]
    done = subprocess.run([*line, "--checkpoint", tmp_path / "large"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "NaN or infinite logits" in done.stderr


KEYS = {
    "vision": ("stem", "stages", "alpha", "side"),
    "resampler": ("layers", "heads"),
    "language": ("layers", "heads"),
    "xattn": ("heads",),
}


def test_it_reads_these_keys_of_the_configuration_and_no_others(ours):
    config = {part: {key: ours["config"][part][key] for key in keys} for part, keys in KEYS.items()}
    items = prompt(few_shots, 0)
    np.testing.assert_array_equal(logits_of_one_file(ours | {"config": config}, items), logits_of_one_file(ours, items))


def test_a_gated_block_stands_where_the_parameters_hold_one(ours, theirs):
    fewer = {name: value for name, value in ours["params"].items() if name not in ("xattn_1", "xattn_3")}
    same = dataclasses.replace(theirs, params={name: theirs.params[name] for name in fewer})
    assert distance(ours | {"params": fewer}, same, prompt(few_shots, 0)) < CLOSE


# ---------------------------------------------------------------- what the chapter says


def test_a_token_before_the_first_picture_gets_exactly_nothing(ours):
    """phi = 0: with the gated feed-forward closed, the block is the identity there, bit for bit."""
    rng = np.random.default_rng(0)
    p = ours["params"]["xattn_0"] | {"alpha_dense": np.float32(0)}
    h, visual = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, 128), (2, 8, 128)))
    phi = np.array([0, 0, 0, 1, 2, 2])
    out = one_file.gated_xattn_dense(p, h, visual, phi, 4)
    np.testing.assert_array_equal(out[:3], h[:3])
    assert (np.abs(out - h)[3:] > 1e-3).any(axis=1).all()


def test_without_media_the_cross_attention_adds_exactly_nothing(ours):
    p = ours["params"]["xattn_0"] | {"alpha_dense": np.float32(0)}
    h = np.random.default_rng(0).standard_normal((6, 128)).astype(np.float32)
    none = np.zeros((0, 8, 128), np.float32)
    np.testing.assert_array_equal(one_file.gated_xattn_dense(p, h, none, np.zeros(6, int), 4), h)


def test_phi_counts_the_pictures_so_far():
    tokens = np.array([one_file.BOS, 9, one_file.IMAGE, 9, 662, one_file.IMAGE, 9])
    assert one_file.phi_of(tokens).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_the_order_of_patches_does_not_count_and_that_of_frames_does(ours):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((4, 16, 128)).astype(np.float32)
    p, config = ours["params"]["resampler"], ours["config"]["resampler"]
    tokens = one_file.resampler(p, features, config)
    shuffled = one_file.resampler(p, features[:, rng.permutation(16)], config)
    np.testing.assert_allclose(shuffled, tokens, atol=2e-5)
    assert np.abs(one_file.resampler(p, features[::-1], config) - tokens).max() > 0.01


def test_closed_gates_leave_the_language_model_alone(ours):
    closed = {"alpha_xattn": np.float32(0), "alpha_dense": np.float32(0)}
    shut = {name: p | closed if name.startswith("xattn") else p for name, p in ours["params"].items()}
    none = {name: p for name, p in ours["params"].items() if not name.startswith("xattn")}
    items = prompt(few_shots, 1)
    shut, none = (logits_of_one_file(ours | {"params": params}, items) for params in (shut, none))
    np.testing.assert_array_equal(shut, none)


POSITIONS = {("resampler", "place"), ("resampler", "share"), ("decoder_block", "angles"), ("area_weights", "before")}


def arrays_inside(call):
    """(function, variable, type) of every array that a function of the one file holds when it returns."""
    arrays = set()

    def watch(frame, event, _):
        if event == "return" and frame.f_code.co_filename == str(SOURCE):
            held = [(name, x) for name, x in frame.f_locals.items() if isinstance(x, np.ndarray | np.generic)]
            arrays.update((frame.f_code.co_name, name, x.dtype) for name, x in held)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return arrays


def test_the_numbers_are_float32_from_pixels_to_logits(ours):
    items = prompt(few_shots, 1) + prompt(clip_of_1_to_12_frames, 11)
    arrays = arrays_inside(lambda: logits_of_one_file(ours, items))
    wide = {(function, name) for function, name, dtype in arrays if dtype == np.float64}
    assert wide <= POSITIONS  # tables of places, made float32 before they meet the signal
    assert {function for function, _, dtype in arrays if dtype == np.float32} >= {"conv", "attend", "flamingo"}
    assert logits_of_one_file(ours, items).dtype == np.float32


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 32), (192, 192), (700, 1000)])
@pytest.mark.parametrize("side", [32, 27])
def test_a_picture_of_any_size_is_fitted_to_the_bit(size, side):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(one_file.fit(Image.fromarray(pixels), side), prepare_picture(pixels, side))


def noise(mode, size=(40, 57)):
    rgba = np.random.default_rng(1).integers(0, 256, (*size, 4), dtype=np.uint8)
    return Image.fromarray(rgba).quantize(64) if mode == "P" else Image.fromarray(rgba).convert(mode)


def assert_read_as_by_the_package(path):
    (pixels,) = one_file.read("<image>", path)
    np.testing.assert_array_equal(one_file.fit(Image.fromarray(pixels), 32), load_picture(path))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_png_of_any_mode_is_read_as_by_the_package(mode, tmp_path):
    noise(mode).save(tmp_path / "picture.png")
    assert_read_as_by_the_package(tmp_path / "picture.png")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_as_by_the_package(mode, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x112] = orientation
    noise(mode).save(tmp_path / "picture.jpg", exif=exif.tobytes())
    assert_read_as_by_the_package(tmp_path / "picture.jpg")


def write_gif(path, frames, **options):
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=rest, **options)


@pytest.mark.parametrize("duration", [1000, 500, 300, 40, 10, [100, 2500, 300, 1000, 40, 990, 3000, 700, 200]])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_gif_gives_the_frames_that_the_package_takes(duration, channels, tmp_path):
    frames = np.random.default_rng(2).integers(0, 256, (9, 40, 57, channels), dtype=np.uint8)
    write_gif(tmp_path / "clip.gif", frames, duration=duration, disposal=2)
    frames = one_file.read("<video>", tmp_path / "clip.gif")
    np.testing.assert_array_equal(
        [one_file.fit(Image.fromarray(f), 32) for f in frames], load_video(tmp_path / "clip.gif")
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, a GIF of eight frames that moves left, and a text."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    Image.fromarray(scene(rng).repeat(3, 0)).save(folder / "picture.png")
    moving = draw_clip(rng, sample_clip(rng, (("star", "red"),), action="moves left"))
    write_gif(folder / "clip.gif", moving, duration=1000)
    (folder / "text.txt").write_text("no picture")
    return folder


def test_a_template_gives_the_text_of_the_package(files, ours, theirs):
    template = "a <b> <EOC><image>Output: a red ring.<EOC><video>Question: what happens? Answer:"
    paths = [files / "picture.png", files / "clip.gif"]
    prompt = one_file.read_prompt(template, paths)
    assert one_file.complete(ours, prompt) == text_of_package(theirs, read_prompt(template, paths, 32))


# ---------------------------------------------------------------- the command line


def run(*arguments, script=("-m", "tinyflamingo.one_file"), folder=ROOT):
    """(exit code, stdout, stderr) in a process of its own."""
    command = [sys.executable, *script, *(str(a) for a in arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_the_command_of_the_docstring_names_the_red_circle():
    command = "'<image>Output:' docs/examples/red_circle.png        # a red circle."
    assert f"python -m tinyflamingo.one_file {command}" in one_file.__doc__
    assert run("<image>Output:", "docs/examples/red_circle.png") == (0, "a red circle.\n", "")


def test_the_command_reads_a_gif_as_a_video(files):
    question = "<video>Question: what happens? Answer:"
    assert run(question, files / "clip.gif") == (0, "it moves left.\n", "")


def test_the_command_takes_another_checkpoint(files, other_folder):
    items = one_file.read_prompt("<image>Output:", [files / "picture.png"])
    said = one_file.complete(one_file.load(other_folder), items)
    assert run("<image>Output:", files / "picture.png", "--checkpoint", other_folder) == (0, said + "\n", "")


@pytest.mark.parametrize(
    "template, names, message",
    [
        ("<image>Output:", [], "1 marks <image> or <video>, 0 files"),
        ("Output:", ["picture.png"], "0 marks <image> or <video>, 1 files"),
        ("<image><video>", ["picture.png"], "2 marks <image> or <video>, 1 files"),
        ("<image>Output:", ["none.png"], "No such file or directory"),
        ("<image>Output:", ["text.txt"], "cannot identify image file"),
        ("<video>Output:", ["text.txt"], "cannot identify image file"),
        ("<image>Output:", ["."], "Is a directory"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(template, names, message, files):
    code, out, err = run(template, *(files / name for name in names))
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(other_folder, tmp_path, value):
    folder = shutil.copytree(other_folder, tmp_path / "copy")
    with np.load(folder / "weights.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/eoc"][-1] = value
    np.savez(folder / "weights.npz", **arrays)
    code, out, err = run("Output:", "--checkpoint", folder)
    assert (code, out, err.count("\n")) == (2, "", 1) and "params/eoc has NaN or infinite numbers" in err


def _with_part(folder, part, kind):
    card = json.loads((folder / "model.json").read_text("utf-8"))
    card["config"][part]["kind"] = kind
    (folder / "model.json").write_text(json.dumps(card), "utf-8")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: _with_part(folder, "xattn", "all_previous"), "parts that this file lacks"),
        (lambda folder: _with_part(folder, "resampler", "port"), "parts that this file lacks"),
        (lambda folder: (folder / "weights.npz").write_bytes(b"PK" + bytes(99)), "one_file:"),
        (lambda folder: (folder / "model.json").write_text("{}", "utf-8"), "one_file:"),
    ],
)
def test_a_checkpoint_that_it_cannot_run_is_one_line_and_exit_code_2(other_folder, tmp_path, damage, message):
    folder = shutil.copytree(other_folder, tmp_path / "copy")
    damage(folder)
    code, out, err = run("Output:", "--checkpoint", folder)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_the_command_takes_the_folder_of_a_run(other_folder, tmp_path):
    shutil.copytree(other_folder, tmp_path / "run" / "checkpoint")
    answers = [run("Output:", "--checkpoint", folder) for folder in (other_folder, tmp_path / "run")]
    assert answers[0] == answers[1] and answers[0][0] == 0


def test_an_animated_png_is_a_video(files, tmp_path):
    pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    pictures[0].save(tmp_path / "clip.png", save_all=True, append_images=pictures[1:], duration=1000)
    assert one_file.read("<video>", tmp_path / "clip.png").shape == (3, 20, 20, 3)


# ---------------------------------------------------------------- the file itself


def test_it_imports_numpy_sentencepiece_pillow_and_the_standard_library_only():
    imports = [node for node in ast.walk(TREE) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in imports if isinstance(node, ast.ImportFrom)}
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "sentencepiece", "PIL"}
    assert not {"importlib", "runpy"} & names and "__import__" not in SOURCE.read_text(encoding="utf-8")


def test_it_runs_alone_in_an_empty_folder(files, tmp_path):
    shutil.copy(SOURCE, tmp_path)
    picture, checkpoint = ROOT / "docs" / "examples" / "red_circle.png", shipped_checkpoint()
    alone = {"script": ("-I", "one_file.py"), "folder": tmp_path}
    assert run("<image>Output:", picture, "--checkpoint", checkpoint, **alone) == (0, "a red circle.\n", "")


def test_it_has_at_most_250_lines_of_at_most_120_characters():
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250 and max(map(len, lines)) <= 120


def functions():
    return [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_has_more_than_20_lines():
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions()}
    assert len(lengths) > 15 and max(lengths.values()) <= 20, lengths


def test_the_functions_stand_in_the_order_of_the_chapter():
    names = [f.name for f in functions()]
    chapter = ["vision_encoder", "resampler", "interleave", "phi_of", "gated_xattn_dense", "decoder_block", "flamingo"]
    places = [names.index(name) for name in [*chapter, "complete"]]
    assert places == sorted(places)
    sections = [line for line in SOURCE.read_text(encoding="utf-8").splitlines() if line.startswith("# ---- §")]
    assert [section[7:9] for section in sections] == ["§2", "§3", "§4", "§5"]
