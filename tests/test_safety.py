"""Things that must never happen: use of the network, pickles, code from a file, a wrong model from a damaged file."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from card_files import write_sealed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import WRITERS

import tinyflamingo
from tinyflamingo import cli
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.data.store import Store, prepare
from tinyflamingo.errors import UserError
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.state import STATE, load_state
from tinyflamingo.variants.registry import untrained

PACKAGE = Path(tinyflamingo.__file__).parent
EXAMPLES = PACKAGE.parent / "docs" / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    """A tiny untrained model with the vocabulary of the tokenizer."""
    from dataclasses import replace

    config, V = get_preset("smoke").config, len(tokenizer)
    config = replace(
        config,
        language=replace(config.language, vocab_size=V),
        text_tower=replace(config.text_tower, vocab_size=V),
    )
    folder = tmp_path_factory.mktemp("safety") / "tiny"
    save_checkpoint(untrained(np.random.default_rng(0), config, tokenizer), folder)
    return folder


# ---- the network ---------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    """Any use of the network fails the test."""

    def refused(*_, **__):
        raise AssertionError("a command used the network")

    class Refused(socket.socket):
        __init__ = refused

    monkeypatch.setattr(socket, "socket", Refused)
    for name in ("create_connection", "getaddrinfo", "gethostbyname", "socketpair"):
        monkeypatch.setattr(socket, name, refused)
    with pytest.raises(AssertionError, match="network"):
        socket.socket()


COMMANDS = {
    "complete": ("complete", "<image>Output:", str(EXAMPLES / "red_circle.png")),
    "complete a video": ("complete", "<video>Output:", str(EXAMPLES / "moves_left.mp4"), "--json"),
    "evaluate": ("evaluate", "--queries", "1", "--task", "vqa"),
    "demo": ("demo", "--out", "@demo.png"),
    "params": ("params", "toy"),
    "data check": ("data", "check", "@data", "--sheet", "@sheet.png"),
    "train": ("train", "--preset", "smoke", "--out", "@run", "--data", "@data", "--mix", "0.5"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_uses_the_network(name, tmp_path, offline, capsys):
    WRITERS["folder"](tmp_path / "data")
    line = [str(tmp_path / word[1:]) if word.startswith("@") else word for word in COMMANDS[name]]
    assert cli.main(line) == 0, capsys.readouterr().err


# ---- pickles and code ----------------------------------------------------------------------------


def sources():
    return [(path, path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]


def test_nothing_unpickles_or_runs_text():
    modules = r"^\s*(?:import|from) (?:pickle|cPickle|dill|shelve|marshal|joblib)\b"
    forbidden = modules + r"|allow_pickle=True|(?<![\w.])(?:eval|exec)\("
    uses = [(path.name, match) for path, code in sources() for match in re.findall(forbidden, code, re.M)]
    assert uses == [("worker.py", "exec(")]  # students' code, in a process of its own: `class grade`
    loads = [line for _, code in sources() for line in code.splitlines() if "np.load(" in line]
    assert len(loads) >= 3 and all("allow_pickle=False" in line for line in loads)


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_in_any_file_of_arrays_is_refused_and_not_opened(tmp_path, checkpoint):
    import hashlib

    sprung, bait = tmp_path / "sprung", np.array([Trap(tmp_path / "sprung")], object)
    shutil.copytree(checkpoint, tmp_path / "model")
    np.savez(tmp_path / "model/weights.npz", bait=bait)
    card = json.loads((tmp_path / "model/model.json").read_text())
    card["sha256"] = hashlib.sha256((tmp_path / "model/weights.npz").read_bytes()).hexdigest()
    write_sealed(tmp_path / "model/model.json", card)
    np.savez(tmp_path / STATE, progress=bait)
    store = prepare(WRITERS["folder"](tmp_path / "data"), tmp_path / "store", 8)
    np.savez(store.folder / "index.npz", offsets=bait, firsts=bait)
    for load, path, message in (
        (load_checkpoint, tmp_path / "model", "not a file of arrays"),
        (load_state, tmp_path, "is damaged"),
        (Store, store.folder, "damaged"),
    ):
        with pytest.raises(UserError, match=message):
            load(path)
    assert not sprung.exists()


# ---- a damaged checkpoint ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["weights.npz", "model.json"]), place=st.floats(0, 1), data=st.binary(min_size=1, max_size=6)
)
def test_a_mutated_checkpoint_is_an_error_or_the_same_model(tmp_path, checkpoint, name, place, data):
    """Never a wrong model. Entries of the card that do not describe the model, such as its scores, may change."""
    folder = tmp_path / "mutated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    content = (folder / name).read_bytes()
    at = int(place * (len(content) - 1))
    (folder / name).write_bytes(content[:at] + data + content[at + len(data) :])
    try:
        model = load_checkpoint(folder)
    except UserError as error:
        assert "\n" not in str(error)
        return
    expected = load_checkpoint(checkpoint)
    assert model.config == expected.config and model.tokenizer.model == expected.tokenizer.model
    for one, other in ((model.params, expected.params), (model.frozen, expected.frozen)):
        for leaf, wanted in zip(named_leaves(one).values(), named_leaves(other).values(), strict=True):
            np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize("part, field, value", [("vision", "alpha", 0.3), ("xattn", "kind", "all_previous")])
def test_a_changed_knob_that_fits_every_shape_is_noticed(tmp_path, checkpoint, part, field, value):
    shutil.copytree(checkpoint, tmp_path / "model")
    card = json.loads((tmp_path / "model/model.json").read_text())
    card["config"][part][field] = value
    (tmp_path / "model/model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="its own checksum differs"):
        load_checkpoint(tmp_path / "model")


# ---- hostile text --------------------------------------------------------------------------------

HOSTILE = st.sampled_from(
    ["<image>", "<EOC>", "<BOS>", "<PAD>", "</s>", "<0x0A>", "\u2581", "\x1a", "\0", "\u202e", "%s{}", "\ufeff"]
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(HOSTILE | st.text(max_size=8), min_size=1, max_size=8))
def test_no_string_becomes_a_tag(tokenizer, parts):
    words = "".join(parts)
    sequence = encode_document([words], tokenizer, complete=False)
    assert IMAGE not in sequence.tokens and tokenizer.eoc not in sequence.tokens[1:] and not sequence.media
    assert tokenizer.decode(tokenizer.encode(words)) == words


@settings(max_examples=10, deadline=None)
@given(parts=st.lists(HOSTILE | st.text(max_size=8), min_size=1, max_size=6))
def test_any_string_can_be_completed(parts):
    try:
        result = tinyflamingo.complete(tinyflamingo.load(), ["".join(parts)], max_tokens=2)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(result["text"], str) and "<image>" not in result["prompt_tokens"]
