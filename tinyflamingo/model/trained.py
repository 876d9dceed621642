"""A trained Flamingo on disk and in memory, and `complete`: one prompt in, one continuation out.

Chapter §1 and §5. A checkpoint is a folder: `weights.npz` (no pickles) and `model.json` (configuration,
vocabulary, seed, versions, metrics, and the checksum of the weights). One that came from a public
port has `weights.safetensors`, which is mapped into memory and not read before it is used, and that
port's `tokenizer.json`. Not here: the state of a training run (`training/state.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyflamingo.data.images import prepare_picture
from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.interop.byte_bpe import ByteTokenizer, Vocabulary
from tinyflamingo.interop.files import header_digest, read_arrays
from tinyflamingo.model.config import FlamingoConfig, config_from_dict, config_to_dict
from tinyflamingo.model.contrastive import init_contrastive
from tinyflamingo.model.encoders import init_encoder
from tinyflamingo.model.flamingo import decoder_of, encode_media, init_flamingo, see
from tinyflamingo.model.generate import Sampling, beam_search, check_beams, generate
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import from_named_leaves, named_leaves

FORMAT = 1
WEIGHTS, CARD = "weights.npz", "model.json"
SEALED = ("format", "sha256", "config", "tokenizer")
MAPPED, WORDS = "weights.safetensors", "tokenizer.json"  # of a checkpoint that came from a public port


@dataclass
class TrainedFlamingo:
    """Everything that `complete` needs. info: seed, versions, command, metrics."""

    config: FlamingoConfig
    params: dict  # resampler, gated blocks, <EOC>
    frozen: dict  # vision, feature_mean, feature_scale, contrastive, language
    tokenizer: Tokenizer | ByteTokenizer
    info: dict = field(default_factory=dict)


def untrained(rng, config: FlamingoConfig, tokenizer) -> TrainedFlamingo:
    """A Flamingo of this configuration with fresh weights (gates at 0)."""
    vision = init_encoder(rng, config.vision)
    contrastive = init_contrastive(rng, config, vision)
    frozen = {
        "vision": vision,
        "feature_mean": np.zeros(config.vision.width, np.float32),
        "feature_scale": np.ones(config.vision.width, np.float32),
        "contrastive": {k: v for k, v in contrastive.items() if k != "vision"},
        "language": decoder_of(config.language).init(rng, config.language),
    }
    return TrainedFlamingo(config, init_flamingo(rng, config), frozen, tokenizer)


def complete(model: TrainedFlamingo, items, max_tokens=24, beams=1, sampling: Sampling | None = None, rng=None):
    """Continue a prompt: a list that mixes strings, `EOC`, pictures and videos, in order.

    Pictures are uint8 (Y, X, 3), videos uint8 (F, Y, X, 3); those of another size than the model learned from are
    fitted to it, as files are (see `data/images.py`, `data/video.py`). A string is text: a literal "<image>" in it is
    not a tag.
    Returns {"text", "tokens", "log_probs", "phi", "prompt_tokens"}. Raises `UserError` for a prompt
    that is too long or an item of another kind.
    """
    if isinstance(items, str):
        raise UserError("a prompt is a list, such as [picture, 'Output:'], not a string")
    check_beams(beams, sampling)
    side = model.config.vision.side
    sequence = encode_document([_checked(item, side) for item in items], model.tokenizer, complete=False)
    if not sequence.tokens:
        raise UserError("the prompt is empty: give some text, or a picture")
    batch = make_batch([sequence], left=True)
    visual = look(model, batch.media)
    if beams > 1:
        (tokens,), log_probs = beam_search(model.params, model.frozen, batch, visual, model.config, beams, max_tokens)
    else:
        out = generate(model.params, model.frozen, batch, visual, model.config, max_tokens, sampling, rng)
        (tokens,), (log_probs,) = out
    return {
        "text": model.tokenizer.decode(tokens).strip(),
        "tokens": [model.tokenizer.piece(t) for t in tokens],
        "log_probs": log_probs,
        "phi": [int(p) for p in batch.phi[0]],
        "prompt_tokens": [model.tokenizer.piece(t) for t in sequence.tokens],
    }


def _checked(item, side):
    if item is EOC or isinstance(item, str | Quiet):
        return item
    if (
        isinstance(item, np.ndarray)
        and item.dtype == np.uint8
        and item.ndim in (3, 4)
        and item.size
        and item.shape[-1] == 3
    ):
        return item if item.shape[-3:-1] == (side, side) else _fitted(item, side)
    raise UserError(
        "a prompt mixes strings, EOC, pictures (uint8, shape (Y, X, 3)) and videos (uint8, shape (F, Y, X, 3)); "
        f"found {type(item).__name__}" + (f" {item.dtype} {item.shape}" if isinstance(item, np.ndarray) else "")
    )


def _fitted(item, side):
    """A picture or video of another size, fitted as one from a file would be: the model learned from this one."""
    return prepare_picture(item, side) if item.ndim == 3 else np.stack([prepare_picture(f, side) for f in item])


def look(model: TrainedFlamingo, media):
    """Visual tokens (M, R, D) of a list of pictures and videos, in order."""
    if not media:
        return np.zeros((0, model.config.resampler.latents, model.config.visual_width), np.float32)
    clips = [m[None] if m.ndim == 3 else m for m in media]
    return np.concatenate([_look_at(model, clip, place) for place, clip in enumerate(clips)])


def _look_at(model, clip, place):
    """One picture or video (F, Y, X, 3), the `place`-th of its prompt from 0, to (1, R, D)."""
    features = encode_media(model.frozen, clip[None], model.config)
    return see(model.params, features, model.config, np.array([place]))


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package (its MODEL_CARD.md tells how it was made)."""
    return Path(__file__).parent.parent / "assets" / "toy"


def save_checkpoint(model: TrainedFlamingo, folder):
    """Write a checkpoint folder: the weights, then the card with their checksum, each atomically.

    A kill between the two leaves a folder that refuses to load, never a mixture of two models.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    packed = io.BytesIO()
    frozen = {n: leaf.astype(np.float16) for n, leaf in named_leaves({"frozen": model.frozen}).items()}
    np.savez(packed, **named_leaves({"params": model.params}), **frozen)
    card = {
        "format": FORMAT,
        "sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
        "config": config_to_dict(model.config),
        "tokenizer": base64.b64encode(model.tokenizer.model).decode(),
        **model.info,
    }
    card["card_sha256"] = _card_digest(card)
    write_atomically(folder / WEIGHTS, packed.getvalue())
    write_atomically(folder / CARD, json.dumps(card, indent=1).encode())


def _card_digest(card) -> str:
    """The checksum of what of a card decides what the model says."""
    return hashlib.sha256(json.dumps([card[name] for name in SEALED], sort_keys=True).encode()).hexdigest()


def load_checkpoint(folder) -> TrainedFlamingo:
    """Read a checkpoint folder. Anything missing, cut or not matching is a `UserError`."""
    folder = Path(folder)
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
    return TrainedFlamingo(config, tree["params"], tree["frozen"], tokenizer, info)


def _read_tokenizer(folder, raw):
    """Ours is in the card; a public port's is a file beside it, and the card tells its reserved ids."""
    if not isinstance(raw, dict):
        return Tokenizer(base64.b64decode(raw, validate=True))
    try:
        return ByteTokenizer((folder / WORDS).read_bytes(), Vocabulary(**raw))
    except OSError as error:
        raise UserError(f"checkpoint {folder}: {WORDS} cannot be read ({error.strerror})") from error


def _read_card(folder):
    """The card, as it was written: its own seal is looked at before anything is made of it."""
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
    if missing := [name for name in SEALED if name not in card]:
        raise UserError(f"checkpoint {folder}: {CARD} is damaged (no {', '.join(missing)} in it); copy it anew")
    if card.get("card_sha256", told := _card_digest(card)) != told:  # cards of before have none
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
        raise UserError(f"checkpoint {folder}: {MAPPED} is another one than {CARD} tells of (its header differs)")
    return from_named_leaves(arrays)


def _check_shapes(folder, tree, like):
    """The arrays must be those of the configuration, in name and shape; a public port has no tower for captions."""
    if not isinstance(like.tokenizer, Tokenizer):
        like.frozen["contrastive"] = {"picture_projection": like.frozen["contrastive"]["picture_projection"]}
    want = {n: a.shape for n, a in named_leaves({"params": like.params, "frozen": like.frozen}).items()}
    have = {n: a.shape for n, a in named_leaves(tree).items()}
    odd = sorted(n for n in want.keys() | have.keys() if want.get(n) != have.get(n))
    if odd:
        name = odd[0]
        raise UserError(
            f"checkpoint {folder}: {len(odd)} arrays do not fit the configuration, first {name}: "
            f"expected {want.get(name, 'none')}, found {have.get(name, 'none')}"
        )
