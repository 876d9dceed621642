"""A trained Flamingo on disk.

A checkpoint is a folder: `weights.npz` (no pickles) and `model.json` (configuration, vocabulary, seed, versions,
metrics, and the checksum of the weights). A checkpoint that came from a public port has `weights.safetensors`
instead, which is mapped into memory and read only when an array is used, and that port's `tokenizer.json`.

Serves chapter §1. Not here: the state of a training run (`training/state.py`), completing a prompt
(`decoding/complete.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from pathlib import Path

import numpy as np

from tinyflamingo.array_files import chunks, header_digest, read_arrays
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants.byte_bpe import ByteTokenizer, Vocabulary
from tinyflamingo.variants.registry import config_from_dict, config_to_dict, untrained

FORMAT = 2
WEIGHTS, CARD = "weights.npz", "model.json"
IN_RUN = "checkpoint"  # the folder of the finished model, in the folder of a run
SEALED = ("format", "sha256", "config", "tokenizer")  # what of a card decides what the model says
MAPPED, WORDS = "weights.safetensors", "tokenizer.json"  # of a checkpoint that came from a public port


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package (its MODEL_CARD.md tells how it was made)."""
    return Path(__file__).parent / "assets" / "toy"


# ---- write


def save_checkpoint(model: TrainedFlamingo, folder):
    """Write a checkpoint folder: the weights, then the card with their checksum, each atomically.

    A kill between the two leaves a folder that refuses to load, never a mixture of two models.
    """
    folder = _made(folder)
    packed = io.BytesIO()
    frozen = {n: leaf.astype(np.float16) for n, leaf in named_leaves({"frozen": model.frozen}).items()}
    np.savez(packed, **named_leaves({"params": model.params}), **frozen)
    tokenizer = base64.b64encode(model.tokenizer.model).decode()
    write_atomically(folder / WEIGHTS, packed.getvalue())
    _write_card(folder, hashlib.sha256(packed.getvalue()).hexdigest(), model.config, tokenizer, model.info)


def save_mapped(folder, config, tokenizer: ByteTokenizer, shapes, get, info):
    """Write a checkpoint of any size, one array at a time: the weights, the tokenizer, then the card.

    shapes: {name: shape} of all arrays; get: a function of a name that gives the array.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).exists():
        raise UserError(f"cannot write {folder}: another checkpoint is there")
    folder = _made(folder)
    write_atomically(folder / MAPPED, chunks(Path(MAPPED).suffix, shapes, get))
    write_atomically(folder / WORDS, tokenizer.data)
    _write_card(folder, header_digest(folder / MAPPED), config, tokenizer.vocabulary._asdict(), info)


def _made(folder) -> Path:
    """The folder, made if need be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    return Path(folder)


def _write_card(folder, digest, config, tokenizer, info):
    """The card, which carries the checksum of the weights and its own."""
    card = {"format": FORMAT, "sha256": digest, "config": config_to_dict(config), "tokenizer": tokenizer, **info}
    card["card_sha256"] = _card_digest(card)
    write_atomically(folder / CARD, json.dumps(card, indent=1).encode())


def _card_digest(card) -> str:
    """The checksum of the sealed fields."""
    return hashlib.sha256(json.dumps([card[name] for name in SEALED], sort_keys=True).encode()).hexdigest()


# ---- read


def load_checkpoint(folder) -> TrainedFlamingo:
    """Read a checkpoint's folder, or a run's folder. Anything missing, cut or not matching is a `UserError`."""
    folder = _of_run(Path(folder))
    card = _read_card(folder)
    try:
        config = config_from_dict(card["config"])
        tokenizer = _read_tokenizer(folder, card["tokenizer"])
        like = untrained(HollowGenerator(), config, tokenizer)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise UserError(f"checkpoint {folder}: {CARD} is damaged ({error}); train again or copy it anew") from error
    if len(tokenizer) != config.language.vocab_size:
        raise UserError(
            f"checkpoint {folder}: {CARD} has a tokenizer of {len(tokenizer)} pieces "
            f"but language.vocab_size {config.language.vocab_size}"
        )
    tree = _read_weights(folder, card)
    _check_shapes(folder, tree, like)
    info = {k: v for k, v in card.items() if k not in (*SEALED, "card_sha256")}
    return TrainedFlamingo(config, tree["params"], tree["frozen"], tokenizer, info, like.parts)


def _of_run(folder) -> Path:
    """The checkpoint in the folder of a run; any other folder as it is."""
    return folder if (folder / CARD).exists() or not (folder / IN_RUN / CARD).exists() else folder / IN_RUN


def _read_tokenizer(folder, raw):
    """Ours is in the card; a public port's is a file beside it, and the card tells its reserved ids."""
    if not isinstance(raw, dict):
        return Tokenizer(base64.b64decode(raw, validate=True))
    try:
        return ByteTokenizer((folder / WORDS).read_bytes(), Vocabulary(**raw))
    except OSError as error:
        raise UserError(f"checkpoint {folder}: {WORDS} cannot be read ({error.strerror})") from error


def _read_card(folder):
    """The card. Its own checksum is compared before anything is made from it."""
    if not folder.is_dir():
        raise UserError(f"checkpoint {folder}: no such folder; train one with 'python -m tinyflamingo train'")
    try:
        card = json.loads((folder / CARD).read_bytes())
    except FileNotFoundError:
        raise UserError(f"checkpoint {folder}: no {CARD} in it; is it the right folder?") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"checkpoint {folder}: {CARD} cannot be read ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"checkpoint {folder}: {CARD} is not of format {FORMAT}")
    if missing := [name for name in (*SEALED, "card_sha256") if name not in card]:
        raise UserError(f"checkpoint {folder}: {CARD} is damaged (no {', '.join(missing)} in it); copy it anew")
    if card["card_sha256"] != _card_digest(card):
        raise UserError(f"checkpoint {folder}: {CARD} was changed (its own checksum differs); copy it anew")
    return card


def _read_weights(folder, card):
    if (folder / MAPPED).exists():
        return _map_weights(folder, card)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint {folder}: {WEIGHTS} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise UserError(f"checkpoint {folder}: {WEIGHTS} is cut or changed (its checksum differs from {CARD})")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return from_named_leaves({name: arrays[name].astype(np.float32) for name in arrays.files})
    except Exception as error:  # a foreign file may fail anywhere inside zipfile or NumPy
        raise UserError(f"checkpoint {folder}: {WEIGHTS} is not a file of arrays") from error


def _map_weights(folder, card):
    """The arrays of a mapped checkpoint. Its header is checked, its numbers are not read for that."""
    arrays = read_arrays(folder / MAPPED)
    if header_digest(folder / MAPPED) != card.get("sha256"):
        raise UserError(f"checkpoint {folder}: {MAPPED} does not belong to {CARD} (its header differs)")
    return from_named_leaves(arrays)


def _check_shapes(folder, tree, like):
    """The arrays must be those of the configuration, in name and shape; a public port has no tower for captions."""
    if not isinstance(like.tokenizer, Tokenizer):
        like.frozen["contrastive"] = {"picture_projection": like.frozen["contrastive"]["picture_projection"]}
    want = {n: a.shape for n, a in named_leaves({"params": like.params, "frozen": like.frozen}).items()}
    have = {n: a.shape for n, a in named_leaves(tree).items()}
    wrong = sorted(n for n in want.keys() | have.keys() if want.get(n) != have.get(n))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"checkpoint {folder}: {len(wrong)} arrays do not fit the configuration, first {name}: "
            f"expected {want.get(name, 'none')}, found {have.get(name, 'none')}"
        )
