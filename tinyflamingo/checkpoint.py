"""A trained Flamingo on disk.

A checkpoint is a folder: `weights.npz` (no pickles) and `model.json`, the card (configuration, tokenizer, seed,
versions, metrics, and the checksum of the weights). A checkpoint that was converted from a public port has
`weights.safetensors` instead, which is mapped into memory and read only when an array is used, and `tokenizer.json`.

Serves chapter §1. Not here: the state of a training run (`training/state.py`), completion of a prompt
(`decoding/complete.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from tinyflamingo.array_files import chunks, header_digest, not_finite, npz_heads, read_arrays, safetensors_shapes
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_JSON, check_name, read_json, read_regular, require_regular, write_atomically
from tinyflamingo.language import _
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import from_named_leaves, in_half, named_leaves
from tinyflamingo.variants.byte_bpe import ByteTokenizer, Vocabulary
from tinyflamingo.variants.registry import config_from_dict, config_to_dict, untrained

FORMAT = 3
WEIGHTS, CARD = "weights.npz", "model.json"
IN_RUN = "checkpoint"  # the folder of the finished model, in the folder of a run
MODEL = ("format", "sha256", "config", "tokenizer")  # the fields of a card on which the model depends; others are facts
MAPPED, TOKENIZER = "weights.safetensors", "tokenizer.json"  # of a checkpoint converted from a public port


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package. Its MODEL_CARD.md says how it was made."""
    return Path(__file__).parent / "assets" / "toy"


# ---- write


def save_checkpoint(model: TrainedFlamingo, folder: str | os.PathLike) -> None:
    """Write a checkpoint folder: the weights, then the card with their checksum, each atomically.

    If the process is killed between the two, the folder does not load. It is never a mixture of two models. A model
    with the tokenizer of a public port is written as `convert` writes it. Numbers that loading would refuse are a
    `UserError`, and nothing is written.
    """
    if isinstance(model.tokenizer, ByteTokenizer):
        leaves = named_leaves({"params": model.params, "frozen": model.frozen})
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        save_mapped(folder, model.config, model.tokenizer, shapes, leaves.__getitem__, model.info)
        return
    params, frozen = named_leaves({"params": model.params}), in_half(named_leaves({"frozen": model.frozen}))
    if name := not_finite(params):
        raise UserError(f"cannot write {folder}: {name} has NaN or infinite numbers; train it again")
    packed = io.BytesIO()
    np.savez(packed, **params, **frozen)
    tokenizer = base64.b64encode(model.tokenizer.model).decode()
    path = _make_folder(folder)
    write_atomically(path / WEIGHTS, packed.getvalue())
    _write_card(path, hashlib.sha256(packed.getvalue()).hexdigest(), model.config, tokenizer, model.info)


def save_mapped(
    folder: str | os.PathLike,
    config: FlamingoConfig,
    tokenizer: ByteTokenizer,
    shapes: dict[str, tuple],  # {name: shape} of all arrays
    get: Callable[[str], np.ndarray],  # name -> array
    info: dict,
) -> None:
    """Write a checkpoint of any size, one array at a time: the weights, the tokenizer, then the card."""
    path = _make_folder(folder)
    if (path / WEIGHTS).exists():
        raise UserError(f"cannot write {path}: another checkpoint is there; choose another folder")
    write_atomically(path / MAPPED, chunks(Path(MAPPED).suffix, shapes, get))
    write_atomically(path / TOKENIZER, tokenizer.data)
    _write_card(path, header_digest(path / MAPPED), config, tokenizer.vocabulary._asdict(), info)


def _make_folder(folder):
    """The path of a folder, which is made if it does not exist."""
    check_name(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    require_regular(folder)
    return Path(folder)


def _write_card(folder, digest, config, tokenizer, info):
    """Write the card, with the checksum of the weights and its own."""
    card = {"format": FORMAT, "sha256": digest, "config": config_to_dict(config), "tokenizer": tokenizer, **info}
    if "unlike" not in card and (folder / CARD).exists():  # the threshold of `calibrate` belongs to the weights
        with suppress(UserError):
            old = _read_card(folder)
            card |= {"unlike": old["unlike"]} if old["sha256"] == digest and "unlike" in old else {}
    _write_sealed(folder, card)


def _write_sealed(folder, card):
    write_atomically(folder / CARD, json.dumps(card | {"card_sha256": _card_digest(card)}, indent=1).encode())


def add_to_card(folder: str | os.PathLike, **facts: dict) -> None:
    """Write facts about the model into the card of a checkpoint, beside those that are there."""
    folder = find_checkpoint(Path(folder))
    card = _read_card(folder)
    if known := facts.keys() & MODEL:
        raise ValueError(f"the fields {sorted(known)} belong to the model")
    _write_sealed(folder, card | facts)


def _card_digest(card):
    """The checksum of all fields but itself, as they are after writing and reading."""
    fields = json.loads(json.dumps({name: value for name, value in card.items() if name != "card_sha256"}))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# ---- read


def load_checkpoint(folder: str | os.PathLike) -> TrainedFlamingo:
    """Read the folder of a checkpoint or of a run.

    A file that is missing, cut or does not match, and a number that is not finite, are a `UserError`.
    """
    folder = find_checkpoint(Path(folder))
    card = _read_card(folder)
    try:
        config = config_from_dict(card["config"])
        tokenizer = _read_tokenizer(folder, card["tokenizer"])
        template = untrained(HollowGenerator(), config, tokenizer)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise UserError(f"checkpoint {folder}: {CARD} is damaged ({error}); train again or copy it again") from error
    if len(tokenizer) != config.language.vocab_size:
        raise UserError(
            f"checkpoint {folder}: {CARD} has a tokenizer of {len(tokenizer)} pieces "
            f"but language.vocab_size {config.language.vocab_size}"
        )
    tree = _read_weights(folder, card, _expected_shapes(template))
    if name := not_finite(named_leaves(tree)):
        raise UserError(f"checkpoint {folder}: {name} has NaN or infinite numbers: copy it again, or train again")
    info = {k: v for k, v in card.items() if k not in (*MODEL, "card_sha256")}
    return TrainedFlamingo(config, tree["params"], tree["frozen"], tokenizer, info, template.parts)


def find_checkpoint(folder: Path) -> Path:
    """The folder of the checkpoint inside the folder of a run; any other folder itself."""
    return folder if (folder / CARD).exists() or not (folder / IN_RUN / CARD).exists() else folder / IN_RUN


def _read_tokenizer(folder, raw):
    """Our tokenizer is in the card. A public port's is in its own file, and the card has its reserved ids."""
    if not isinstance(raw, dict):
        return Tokenizer(base64.b64decode(raw, validate=True))
    try:
        return ByteTokenizer(read_regular(folder / TOKENIZER, LARGEST_JSON), Vocabulary(**raw))
    except OSError as error:
        raise UserError(f"checkpoint {folder}: {TOKENIZER} cannot be read ({error.strerror})") from error


def _read_card(folder):
    """The card. Its own checksum is compared before anything else is read from it."""
    if folder.is_file():
        raise UserError(f"checkpoint {folder}: it is a file; give the folder of a checkpoint or of a run")
    if not folder.is_dir():
        raise UserError(f"checkpoint {folder}: no such folder; train one with 'python -m tinyflamingo train'")
    try:
        card = read_json(folder / CARD)
    except FileNotFoundError:
        unfinished = (folder / "state.npz").exists()
        remedy = _("the run is not finished: continue it with --resume" if unfinished else "is it the right folder?")
        raise UserError(f"checkpoint {folder}: no {CARD} in it; {remedy}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"checkpoint {folder}: {CARD} cannot be read ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"checkpoint {folder}: {CARD} is not of format {FORMAT}; another version made it: train again")
    if missing := [name for name in (*MODEL, "card_sha256") if name not in card]:
        raise UserError(f"checkpoint {folder}: {CARD} is damaged (no {', '.join(missing)} in it); copy it again")
    if card["card_sha256"] != _card_digest(card):
        raise UserError(f"checkpoint {folder}: {CARD} was changed (its own checksum differs); copy it again")
    return card


def _read_weights(folder, card, expected):
    """The arrays. Their names and shapes are compared with the expected ones before any of them is read."""
    if (folder / MAPPED).exists():
        return _map_weights(folder, card, expected)
    try:
        most = 8 * sum(map(math.prod, expected.values())) + 1000 * len(expected)
        data = read_regular(folder / WEIGHTS, max(most, LARGEST_JSON))
    except OSError as error:
        raise UserError(f"checkpoint {folder}: {WEIGHTS} cannot be read ({error.strerror}); copy it again") from error
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise UserError(
            f"checkpoint {folder}: {WEIGHTS} is cut or changed (its checksum differs from {CARD}); copy it again"
        )
    try:
        _check_shapes(folder, {name: shape for name, (shape, _) in npz_heads(io.BytesIO(data)).items()}, expected)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return from_named_leaves({name: arrays[name].astype(np.float32) for name in arrays.files})
    except UserError:
        raise
    except Exception as error:  # a foreign file may fail anywhere inside zipfile or NumPy
        raise UserError(f"checkpoint {folder}: {WEIGHTS} is not a file of arrays") from error


def _map_weights(folder, card, expected):
    """The arrays of a mapped checkpoint, by its header; their numbers are not read yet."""
    if header_digest(folder / MAPPED) != card.get("sha256"):
        raise UserError(f"checkpoint {folder}: {MAPPED} does not belong to {CARD} (its header differs)")
    _check_shapes(folder, safetensors_shapes(folder / MAPPED), expected)
    return from_named_leaves(read_arrays(folder / MAPPED))


def _expected_shapes(template):
    """{name: shape} of the arrays of the template. A public port has no tower for captions."""
    if not isinstance(template.tokenizer, Tokenizer):
        template.frozen["contrastive"] = {"picture_projection": template.frozen["contrastive"]["picture_projection"]}
    return {n: a.shape for n, a in named_leaves({"params": template.params, "frozen": template.frozen}).items()}


def _check_shapes(folder, shapes, expected):
    """The arrays must have the expected names and shapes."""
    wrong = sorted(n for n in expected.keys() | shapes.keys() if expected.get(n) != shapes.get(n))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"checkpoint {folder}: {len(wrong)} arrays do not fit the configuration, first {name[:80]}: "
            f"expected {expected.get(name, 'none')}, found {shapes.get(name, 'none')}"
        )
