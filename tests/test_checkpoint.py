"""A trained Flamingo on disk: a round trip, every kind of damage, atomic writes."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
from card_files import write_sealed
from model_cases import shaken_flamingo, tiny_config

import tinyflamingo
from tinyflamingo import checkpoint
from tinyflamingo.array_files import chunks, header_digest
from tinyflamingo.checkpoint import CARD, FORMAT, IN_RUN, MAPPED, WEIGHTS, load_checkpoint, save_checkpoint
from tinyflamingo.decoding.complete import complete
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.model.flamingo import CHAPTER
from tinyflamingo.ops.tree import from_named_leaves, half_precision, named_leaves
from tinyflamingo.variants.registry import untrained

CONFIG = tiny_config(vocab=662)
RED, CLIP = np.full((8, 8, 3), (200, 10, 30), np.uint8), np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
PROMPT = [RED, "a red star.", CLIP, "Output:"]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Never changed."""
    model = shaken_flamingo(tokenizer, CONFIG)
    model.info = {"seed": 7, "metrics": {"accuracy": 0.5}}
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "good"
    save_checkpoint(model, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "copy")


# ---------------------------------------------------------------- the round trip


def test_round_trip(model, saved):
    again = load_checkpoint(saved)
    assert again.config == model.config and again.info == model.info and again.parts == CHAPTER
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


def test_the_folder_of_a_run_gives_the_checkpoint_in_it(model, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run" / IN_RUN)
    assert load_checkpoint(tmp_path / "run").info == tinyflamingo.load(tmp_path / "run").info == model.info
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no model.json"):
        load_checkpoint(tmp_path / "other")


def test_a_folder_of_another_type_is_a_user_error():
    with pytest.raises(UserError, match="is a path, not of type int"):
        tinyflamingo.load(5)


# ---------------------------------------------------------------- damage


def _sign(folder, data):
    """Write these weights, and a card with their checksum."""
    (folder / WEIGHTS).write_bytes(data)
    card = json.loads((folder / CARD).read_text())
    write_sealed(folder / CARD, card | {"sha256": hashlib.sha256(data).hexdigest()})


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
        write_sealed(folder / CARD, card)

    return spoil


def _edited(folder):
    """A fact about the model, changed by hand."""
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"unlike": {"threshold": "a"}}))


def _unsealed(folder):
    card = json.loads((folder / CARD).read_text())
    del card["card_sha256"]
    (folder / CARD).write_text(json.dumps(card))


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


def _bomb(size):
    """A small npz with one large array."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **{"params/eoc": np.zeros(size, np.int8)})
    return packed.getvalue()


def _npy():
    packed = io.BytesIO()
    np.save(packed, np.zeros(3))
    return packed.getvalue()


class _OpensAFile:
    """If it is unpickled, a file appears."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


def _pickle(folder):
    _arrays(folder, lambda a: a.update({"params/eoc": np.array([_OpensAFile()], dtype=object)}))


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
    "card is a list": (lambda f: (f / CARD).write_text("[1, 2]"), "not of format 3"),
    "card too deep": (lambda f: (f / CARD).write_text("[" * 200_000), "model.json"),
    "card of another format": (_card(lambda c: c.update(format=1)), "not of format 3"),
    "card without a format": (_card(lambda c: c.pop("format")), "not of format 3"),
    "card with a changed fact": (_edited, "its own checksum differs"),
    "card without its checksum": (_unsealed, r"damaged \(no card_sha256 in it\)"),
    "no checksum": (_card(lambda c: c.pop("sha256")), "no sha256 in it"),
    "no config": (_card(lambda c: c.pop("config")), r"model.json is damaged \(no config in it\)"),
    "config is a number": (_card(lambda c: c.update(config=3)), "expected the parts .* found int"),
    "config with an unknown part": (_card(lambda c: c["config"].update(audio={})), "configuration: expected the parts"),
    "config with an unknown field": (_card(lambda c: c["config"]["language"].update(x=1)), r"missing fields \['x'\]"),
    "config part is null": (_card(lambda c: c["config"].update(xattn=None)), "'xattn' is of kind None but must"),
    "config part is a list": (_card(lambda c: c["config"].update(vision=[1])), "'vision' is of kind None but must"),
    "config part of no kind": (_card(lambda c: c["config"]["xattn"].pop("kind")), "'xattn' is of kind None"),
    "config part of an unknown kind": (
        _card(lambda c: c["config"]["resampler"].update(kind="qformer")),
        "'resampler' is of kind 'qformer' but must be one of perceiver, mlp",
    ),
    "config part of another kind": (_card(lambda c: c["config"]["vision"].update(kind="vit")), "unknown or missing"),
    "config of another form": (_card(lambda c: c["config"]["xattn"].update(kind="vanilla")), "do not fit"),
    "config that contradicts itself": (_card(lambda c: c["config"]["vision"].update(width=16)), "vision.width 16"),
    "config of a larger model": (_card(lambda c: c["config"]["language"].update(layers=4)), "do not fit"),
    "config of a smaller model": (_card(lambda c: c["config"]["language"].update(layers=1)), "do not fit"),
    "config of another width": (_card(lambda c: c["config"]["language"].update(width=16)), "expected .* found"),
    "config width is a text": (_card(lambda c: c["config"]["language"].update(width="12")), "width is '12'"),
    "config width is a fraction": (_card(lambda c: c["config"]["xattn"].update(heads=1.5)), "heads is 1.5"),
    "config stages are a number": (_card(lambda c: c["config"]["vision"].update(stages=3)), "stages is 3"),
    "config without stages": (_card(lambda c: c["config"]["vision"].update(stages=[])), "stages is"),
    "config ratio is a text": (_card(lambda c: c["config"]["vision"].update(se_ratio="x")), "se_ratio is 'x'"),
    "config ratio is 0": (_card(lambda c: c["config"]["vision"].update(se_ratio=0)), "se_ratio is 0 but must be above"),
    "config ratio is null": (_card(lambda c: c["config"]["vision"].update(alpha=None)), "alpha is None"),
    "config of a huge size": (
        _card(lambda c: c["config"]["text_tower"].update(joint_width=10**30)),
        "joint_width is 10*0 but must be at most 16777216",
    ),
    "config of a million layers": (
        _card(lambda c: c["config"]["language"].update(layers=10**6)),
        "layers is 1000000 but must be at most 1000",
    ),
    "config of a million blocks": (
        _card(lambda c: c["config"]["vision"].update(stages=[[48, 1000, 1]] * 1000)),
        "stages_blocks is 1000000 but must be at most 1000",
    ),
    "config of a long stem": (
        _card(lambda c: c["config"]["vision"].update(stem=[[16, 2]] * 10**5)),
        "stem_blocks is 100000 but must be at most 1000",
    ),
    "card of millions of lists": (
        lambda f: (f / CARD).write_bytes(b'{"a": [' + b"[]," * 1_500_000 + b"1]}"),
        "more than 2097152 values",
    ),
    "signed: names nested too deep": (
        lambda f: _arrays(f, lambda a: a.update({"/".join("a" * 3000): np.zeros(2)})),
        "expected none",
    ),
    "signed: an array that unpacks to gigabytes": (
        lambda f: _sign(f, _bomb(100_000_000)),
        "do not fit the configuration",
    ),
    "no tokenizer": (_card(lambda c: c.pop("tokenizer")), r"model.json is damaged \(no tokenizer in it\)"),
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


for value in (np.nan, np.inf, -np.inf):
    for array in ("params/eoc", "frozen/language/embedding", "frozen/feature_mean"):
        DAMAGE[f"{value} in {array}"] = (
            lambda f, n=array, v=value: _arrays(f, lambda a: a[n].reshape(-1)[-1:].fill(v)),
            f"{array} has NaN or infinite numbers",
        )


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_clear_line(folder, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoil, match = DAMAGE[name]
    spoil(folder)
    with pytest.raises(UserError, match=match) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "name", ["card of millions of lists", "config of a million layers", "signed: an array that unpacks to gigabytes"]
)
def test_a_checkpoint_is_checked_before_it_takes_memory(folder, name):
    DAMAGE[name][0](folder)
    tracemalloc.start()
    with pytest.raises(UserError):
        load_checkpoint(folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 32 << 20


@pytest.mark.parametrize(
    "part, changed",
    [("vision", {"stages": []}), ("vision", {"se_ratio": "x"}), ("text_tower", {"joint_width": 10**30})],
)
def test_the_checksum_of_a_card_is_compared_first(folder, part, changed):
    card = json.loads((folder / CARD).read_text())
    card["config"][part].update(changed)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match="its own checksum differs"):
        load_checkpoint(folder)


def test_tokenizer_and_configuration_must_have_one_size(folder):
    def smaller(card):
        card["config"]["language"]["vocab_size"] = card["config"]["text_tower"]["vocab_size"] = 620

    _card(smaller)(folder)
    with pytest.raises(UserError, match="tokenizer of 662 pieces but language.vocab_size 620"):
        load_checkpoint(folder)


def test_the_copy_without_damage_loads(folder):
    """Otherwise every test above would pass for the wrong reason."""
    _arrays(folder, lambda arrays: None)
    _card(lambda card: None)(folder)
    assert load_checkpoint(folder).config == CONFIG and FORMAT == 3


# ---------------------------------------------------------------- writing


def test_no_place_to_write_is_a_user_error(model, tmp_path):
    (tmp_path / "file").write_text("I am a file")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "I am a file"


@pytest.mark.parametrize("part, value", [("frozen", 7e4), ("frozen", np.nan), ("params", np.inf)])
def test_numbers_that_loading_would_refuse_are_not_written(model, folder, tmp_path, part, value):
    """Frozen parts have 16 bits on disk: 65504 is the largest number there."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    leaves = named_leaves(getattr(model, part))
    name = next(iter(leaves))
    spoiled = from_named_leaves(leaves | {name: np.full_like(leaves[name], value)})
    for place in (folder, tmp_path / "new"):
        with pytest.raises(UserError, match=name):
            save_checkpoint(dataclasses.replace(model, **{part: spoiled}), place)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and not (tmp_path / "new").exists()


def test_a_number_beyond_16_bits_is_noticed_before_a_stage_uses_it():
    assert half_precision({"a": np.float32([65504, -65504])})["a"].tolist() == [65504, -65504]
    with pytest.raises(UserError, match="a/b has a number beyond 65504"):
        half_precision({"a": {"b": np.float32([1, -7e4])}})


def test_a_save_that_cannot_write_leaves_the_old_checkpoint(model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError):
        save_checkpoint(model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_save_cut_between_its_two_files_is_never_loaded_as_a_mixture(model, folder, monkeypatch):
    """New weights with the old card are refused."""
    real, other = checkpoint.write_atomically, untrained(np.random.default_rng(9), CONFIG, model.tokenizer)

    def only_weights(path, data):
        if path.name == CARD:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_atomically", only_weights)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, folder)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(folder)


# ---------------------------------------------------------------- weights that are mapped


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mapped_weights_that_are_not_finite_are_refused(folder, value):
    with np.load(folder / WEIGHTS) as file:
        arrays = {name: file[name] for name in file.files}
    shapes = {name: array.shape for name, array in arrays.items()}
    write_atomically(folder / MAPPED, chunks(".safetensors", shapes, arrays.__getitem__))
    (folder / WEIGHTS).unlink()
    write_sealed(folder / CARD, json.loads((folder / CARD).read_text()) | {"sha256": header_digest(folder / MAPPED)})
    load_checkpoint(folder)
    with open(folder / MAPPED, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(value).tobytes())
    with pytest.raises(UserError, match=f"{list(shapes)[-1]} has NaN or infinite numbers"):
        load_checkpoint(folder)


@pytest.mark.parametrize("bad", [np.array([1, np.nan], np.float32), np.array([1, 1e300])], ids=["NaN", "too large"])
def test_arrays_that_are_not_finite_are_not_written(tmp_path, bad):
    for path in (tmp_path / "a.safetensors", tmp_path / "a.npz"):
        with pytest.raises(UserError, match="w has NaN or infinite numbers"):
            write_atomically(path, chunks(path.suffix, {"w": (2,)}, lambda name: bad))
    assert list(tmp_path.iterdir()) == []
