"""A trained Flamingo on disk: a round trip, every kind of damage, atomic writes; and `complete`."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from model_cases import shake, tiny_config, with_gates

from tinyflamingo.data.images import prepare_picture
from tinyflamingo.errors import UserError
from tinyflamingo.model import trained
from tinyflamingo.model.generate import Sampling
from tinyflamingo.model.interleave import EOC, Quiet
from tinyflamingo.model.trained import (
    CARD,
    WEIGHTS,
    complete,
    load_checkpoint,
    look,
    save_checkpoint,
    untrained,
)
from tinyflamingo.ops.tree import half_precision, named_leaves

CONFIG = tiny_config(vocab=662)
RED, CLIP = np.full((8, 8, 3), (200, 10, 30), np.uint8), np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
PROMPT = [RED, "a red star.", CLIP, "Output:"]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Untrained weights, shaken, gates open; frozen parts as 16 bits hold them. Never changed."""
    rng = np.random.default_rng(0)
    fresh = untrained(rng, CONFIG, tokenizer)
    fresh.params = with_gates(shake(fresh.params, rng), 0.7, 0.4)
    fresh.frozen = half_precision(shake(fresh.frozen, rng))
    fresh.info = {"seed": 7, "metrics": {"accuracy": 0.5}}
    return fresh


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "good"
    save_checkpoint(model, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "copy")


# ---------------------------------------------------------------- the round trip


def test_round_trip(model, saved):
    again = load_checkpoint(saved)
    assert again.config == model.config and again.info == model.info
    for part in ("params", "frozen"):
        here, there = named_leaves(getattr(model, part)), named_leaves(getattr(again, part))
        assert here.keys() == there.keys()
        for name, leaf in here.items():
            assert there[name].dtype == np.float32
            np.testing.assert_array_equal(there[name], leaf, err_msg=name)
    assert again.tokenizer.encode("a red star.") == model.tokenizer.encode("a red star.")


@pytest.mark.parametrize("beams", [1, 3])
def test_round_trip_gives_the_same_generations(model, saved, beams):
    here, there = (complete(m, PROMPT, max_tokens=6, beams=beams) for m in (model, load_checkpoint(saved)))
    assert here == there and here["tokens"]


def test_saving_twice_gives_the_same_bytes(model, saved, tmp_path):
    save_checkpoint(load_checkpoint(saved), tmp_path / "again")
    card = (tmp_path / "again" / CARD).read_text()
    assert json.loads(card)["config"] == json.loads((saved / CARD).read_text())["config"]
    first, second = (np.load(f / WEIGHTS) for f in (saved, tmp_path / "again"))
    assert first.files == second.files
    for name in first.files:
        assert first[name].dtype == second[name].dtype == (np.float16 if name.startswith("frozen") else np.float32)
        np.testing.assert_array_equal(first[name], second[name])


def test_a_folder_holds_two_files_and_no_pickle(saved):
    assert sorted(p.name for p in saved.iterdir()) == [CARD, WEIGHTS]
    with np.load(saved / WEIGHTS, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind == "f" for name in arrays.files)


# ---------------------------------------------------------------- damage


def _unsealed(card):
    """A card as those of before, without a checksum of its own: what it says is looked at for itself."""
    return {name: value for name, value in card.items() if name != "card_sha256"}


def _sign(folder, data):
    """Write these weights with a card that vouches for them."""
    (folder / WEIGHTS).write_bytes(data)
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(_unsealed(card) | {"sha256": hashlib.sha256(data).hexdigest()}))


def _arrays(folder, change):
    """Change the arrays, sign the result."""
    with np.load(folder / WEIGHTS) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    _sign(folder, packed.getvalue())


def _card(change):
    def spoil(folder):
        card = json.loads((folder / CARD).read_text())
        change(card)
        (folder / CARD).write_text(json.dumps(_unsealed(card)))

    return spoil


def _cut(share):
    def spoil(folder):
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])

    return spoil


def _cut_and_signed(share):
    return lambda folder: _sign(
        folder, (folder / WEIGHTS).read_bytes()[: int(os.path.getsize(folder / WEIGHTS) * share)]
    )


def _flip(share):
    def spoil(folder):
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[int(len(data) * share)] ^= 0x40
        (folder / WEIGHTS).write_bytes(bytes(data))

    return spoil


def _zip_of(name, data):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(name, data)
    return packed.getvalue()


def _npy():
    packed = io.BytesIO()
    np.save(packed, np.zeros(3))
    return packed.getvalue()


class _Loud:
    """Were it unpickled, a file would appear."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


def _pickle(folder):
    _arrays(folder, lambda a: a.update({"params/eoc": np.array([_Loud()], dtype=object)}))


def _directory(name):
    def spoil(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


DAMAGE = {
    "no folder": (lambda f: shutil.rmtree(f), "no such folder"),
    "empty folder": (lambda f: [p.unlink() for p in f.iterdir()], "no model.json"),
    "no card": (lambda f: (f / CARD).unlink(), "no model.json"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "weights.npz cannot be read"),
    "card is a folder": (_directory(CARD), "model.json cannot be read"),
    "weights are a folder": (_directory(WEIGHTS), "weights.npz cannot be read"),
    "empty card": (lambda f: (f / CARD).write_bytes(b""), "model.json cannot be read"),
    "card cut": (lambda f: (f / CARD).write_bytes((f / CARD).read_bytes()[:-40]), "model.json cannot be read"),
    "card is no text": (lambda f: (f / CARD).write_bytes(b"\xff\xfe\x00"), "model.json cannot be read"),
    "card is a list": (lambda f: (f / CARD).write_text("[1, 2]"), "not of format 1"),
    "card too deep": (lambda f: (f / CARD).write_text("[" * 200_000), "model.json"),
    "card of another format": (_card(lambda c: c.update(format=2)), "not of format 1"),
    "no checksum": (_card(lambda c: c.pop("sha256")), "no sha256 in it"),
    "no config": (_card(lambda c: c.pop("config")), "model.json is damaged"),
    "config is a number": (_card(lambda c: c.update(config=3)), "expected the parts .* found int"),
    "config with a foreign part": (_card(lambda c: c["config"].update(audio={})), "configuration: expected the parts"),
    "config with a foreign field": (_card(lambda c: c["config"]["language"].update(x=1)), r"missing fields \['x'\]"),
    "config part is null": (_card(lambda c: c["config"].update(xattn=None)), "model.json is damaged"),
    "config at odds": (_card(lambda c: c["config"]["vision"].update(width=16)), "vision.width 16"),
    "config of a larger model": (_card(lambda c: c["config"]["language"].update(layers=4)), "do not fit"),
    "config of a smaller model": (_card(lambda c: c["config"]["language"].update(layers=1)), "do not fit"),
    "config of another width": (_card(lambda c: c["config"]["language"].update(width=16)), "expected .* found"),
    "config width is a text": (_card(lambda c: c["config"]["language"].update(width="12")), "width is '12'"),
    "config width is a fraction": (_card(lambda c: c["config"]["xattn"].update(heads=1.5)), "heads is 1.5"),
    "config stages are a number": (_card(lambda c: c["config"]["vision"].update(stages=3)), "stages is 3"),
    "config without stages": (_card(lambda c: c["config"]["vision"].update(stages=[])), "stages is"),
    "config share is a text": (_card(lambda c: c["config"]["vision"].update(se_ratio="x")), "se_ratio is 'x'"),
    "config share is null": (_card(lambda c: c["config"]["vision"].update(alpha=None)), "alpha is None"),
    "config without end": (
        _card(lambda c: c["config"]["text_tower"].update(joint_width=10**30)),
        "model.json is damaged",
    ),
    "no tokenizer": (_card(lambda c: c.pop("tokenizer")), "model.json is damaged"),
    "tokenizer is a number": (_card(lambda c: c.update(tokenizer=5)), "model.json is damaged"),
    "tokenizer is empty": (_card(lambda c: c.update(tokenizer="")), "tokenizer: the data are empty"),
    "tokenizer is no base64": (_card(lambda c: c.update(tokenizer="???")), "model.json is damaged"),
    "tokenizer is cut": (_card(lambda c: c.update(tokenizer=c["tokenizer"][:4000])), "tokenizer: "),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "checksum"),
    "weights cut at the start": (_cut(0.01), "checksum"),
    "weights cut in the middle": (_cut(0.5), "checksum"),
    "weights cut at the end": (_cut(0.999), "checksum"),
    "byte flipped at the start": (_flip(0.0), "checksum"),
    "byte flipped in the middle": (_flip(0.5), "checksum"),
    "byte flipped at the end": (_flip(0.999), "checksum"),
    "weights longer": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"x"), "checksum"),
    "weights of another model": (lambda f: (f / WEIGHTS).write_bytes(_npy()), "checksum"),
    "signed: empty": (lambda f: _sign(f, b""), "not a file of arrays"),
    "signed: cut in the middle": (_cut_and_signed(0.5), "not a file of arrays"),
    "signed: cut at the end": (_cut_and_signed(0.999), "not a file of arrays"),
    "signed: noise": (lambda f: _sign(f, b"noise" * 99), "not a file of arrays"),
    "signed: one array, no archive": (lambda f: _sign(f, _npy()), "not a file of arrays"),
    "signed: archive of something else": (lambda f: _sign(f, _zip_of("a.txt", b"hello")), "not a file of arrays"),
    "signed: archive with a broken array": (lambda f: _sign(f, _zip_of("a.npy", _npy()[:20])), "not a file of arrays"),
    "signed: array of text": (
        lambda f: _arrays(f, lambda a: a.update({"params/eoc": np.array(["x"])})),
        "not a file of arrays",
    ),
    "signed: a leaf where a branch should be": (
        lambda f: _arrays(f, lambda a: a.update({"params": np.zeros(2)})),
        "not a file of arrays|do not fit",
    ),
    "signed: pickle inside": (_pickle, "not a file of arrays"),
    "missing array": (lambda f: _arrays(f, lambda a: a.pop("params/eoc")), r"first params/eoc: expected .* found none"),
    "missing part": (
        lambda f: _arrays(f, lambda a: [a.pop(n) for n in list(a) if n.startswith("params")]),
        "do not fit",
    ),
    "extra array": (lambda f: _arrays(f, lambda a: a.update({"extra": np.zeros(2)})), "first extra: expected none"),
    "wrong shape": (
        lambda f: _arrays(f, lambda a: a.update({"params/eoc": np.zeros(5)})),
        r"params/eoc: expected \(12,\), found \(5,\)",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(folder, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoil, match = DAMAGE[name]
    spoil(folder)
    with pytest.raises(UserError, match=match) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "part, changed",
    [("vision", {"stages": []}), ("vision", {"se_ratio": "x"}), ("text_tower", {"joint_width": 10**30})],
)
def test_the_seal_of_a_card_is_looked_at_first(folder, part, changed):
    card = json.loads((folder / CARD).read_text())
    card["config"][part].update(changed)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match="its own checksum differs"):
        load_checkpoint(folder)


def test_tokenizer_and_configuration_must_be_of_one_size(folder):
    def smaller(card):
        card["config"]["language"]["vocab_size"] = card["config"]["text_tower"]["vocab_size"] = 620

    _card(smaller)(folder)
    with pytest.raises(UserError, match="tokenizer of 662 pieces but language.vocab_size 620"):
        load_checkpoint(folder)


def test_the_copy_without_damage_loads(folder):
    """Else every test above would pass for the wrong reason."""
    _arrays(folder, lambda arrays: None)
    assert load_checkpoint(folder).config == CONFIG


# ---------------------------------------------------------------- writing


def test_no_place_to_write_is_a_user_error(model, tmp_path):
    (tmp_path / "file").write_text("I am a file")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "I am a file"


def test_a_save_that_cannot_write_leaves_the_old_checkpoint(model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError):
        save_checkpoint(model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_save_cut_between_its_two_files_is_never_loaded_as_a_mixture(model, folder, monkeypatch):
    """New weights beside the old card: told, not used."""
    real, other = trained.write_atomically, untrained(np.random.default_rng(9), CONFIG, model.tokenizer)

    def only_weights(path, data):
        if path.name == CARD:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(trained, "write_atomically", only_weights)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, folder)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(folder)


# ---------------------------------------------------------------- complete


def test_complete_tells_what_it_did(model):
    found = complete(model, PROMPT, max_tokens=5)
    assert set(found) == {"text", "tokens", "log_probs", "phi", "prompt_tokens"}
    assert found["prompt_tokens"][:2] == ["<BOS>", "<image>"] and found["prompt_tokens"].count("<image>") == 2
    assert len(found["phi"]) == len(found["prompt_tokens"])
    assert found["phi"][0] == 0 and found["phi"][1] == 1 and found["phi"][-1] == 2
    assert len(found["tokens"]) == len(found["log_probs"]) <= 5 and all(p <= 0 for p in found["log_probs"])
    json.dumps(found)  # for --json


def test_complete_stays_within_the_model(model):
    text_only = complete(model, ["Output: a red star.", EOC, Quiet("Output:")], max_tokens=3)
    assert set(text_only["phi"]) == {0} and "<EOC>" in text_only["prompt_tokens"]
    assert complete(model, [], max_tokens=2)["prompt_tokens"] == ["<BOS>"]
    literal = complete(model, ["<image>"], max_tokens=1)
    assert "<image>" not in literal["prompt_tokens"] and set(literal["phi"]) == {0}


def test_complete_samples_by_its_generator(model):
    runs = [
        complete(model, PROMPT, 6, sampling=Sampling(1.5, top_k=50), rng=np.random.default_rng(s)) for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_picture_is_a_video_of_one_frame(model):
    np.testing.assert_array_equal(look(model, [RED]), look(model, [RED[None]]))
    assert complete(model, [RED, "Output:"], 4) == complete(model, [RED[None], "Output:"], 4)


def test_look_keeps_order_and_takes_any_size(model):
    wide = np.zeros((17, 23, 3), np.uint8)
    tokens = look(model, [CLIP, wide, RED])
    assert tokens.shape == (3, CONFIG.resampler.latents, CONFIG.resampler.width) and tokens.dtype == np.float32
    for i, medium in enumerate((CLIP, wide, RED)):
        np.testing.assert_allclose(tokens[i : i + 1], look(model, [medium]), rtol=1e-5, atol=1e-6)
    assert look(model, []).shape == (0, 3, 8)


def test_a_prompt_takes_pictures_and_videos_of_any_size_as_it_takes_files(model):
    side = model.config.vision.side
    wide = np.zeros((17, 23, 3), np.uint8)
    wide[:, :9] = 200
    fitted = prepare_picture(wide, side)
    assert complete(model, [wide, "Output:"], 4) == complete(model, [fitted, "Output:"], 4)
    assert complete(model, [np.stack([wide] * 2), "a"], 4) == complete(model, [np.stack([fitted] * 2), "a"], 4)


@pytest.mark.parametrize("options", [{"beams": 0}, {"beams": -3}, {"beams": 2, "sampling": Sampling(1.0)}], ids=str)
def test_beams_are_from_one_on_and_do_not_sample(model, options):
    with pytest.raises(UserError, match="beams"):
        complete(model, [RED, "Output:"], 2, rng=np.random.default_rng(0), **options)


@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_what_stands_in_the_resamplers_place_completes_too(model, kind):
    config = dataclasses.replace(CONFIG, resampler=dataclasses.replace(CONFIG.resampler, kind=kind))
    plain = untrained(np.random.default_rng(0), config, model.tokenizer)
    assert len(complete(plain, [RED, "Output:"], 3)["log_probs"]) <= 3


def test_a_bare_string_is_no_prompt(model):
    with pytest.raises(UserError, match="a prompt is a list"):
        complete(model, "Output:")


@pytest.mark.parametrize(
    "item, found",
    [
        (3, "int"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        (RED.astype(np.float32), r"float32 \(8, 8, 3\)"),
        (RED[..., :2], r"uint8 \(8, 8, 2\)"),
        (RED[0], r"uint8 \(8, 3\)"),
        (CLIP[:0], r"uint8 \(0, 8, 8, 3\)"),
        (RED[:0], r"uint8 \(0, 8, 3\)"),
    ],
)
def test_items_of_another_kind_are_a_user_error(model, item, found):
    with pytest.raises(UserError, match=f"a prompt mixes strings.* found .*{found}"):
        complete(model, ["a", item])


def test_a_prompt_that_is_too_long_is_a_user_error(model):
    with pytest.raises(UserError, match="but the context is 64"):
        complete(model, ["a red star. " * 30])
