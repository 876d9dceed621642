"""`convert`: weights from a peer's file to ours, and from ours to a peer's names (chapter §1).

A part (resampler, gated block, decoder, encoder) becomes one file and a small JSON beside it with its origin
and sizes. A whole OpenFlamingo becomes a checkpoint folder for `complete --checkpoint`. Arrays are views of
mapped files and are written one at a time, so a model of 10 GB does not need 10 GB of memory. A tensor that
is unknown, missing or of another shape is an error with its name.

Not here: the tables (`names.py`, `decoder_names.py`, `vit_names.py`, `open_flamingo.py`, `timm.py`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinyflamingo.array_files import ENDINGS, chunks, read_arrays
from tinyflamingo.checkpoint import load_checkpoint, save_mapped
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_JSON, read_json, read_regular, write_atomically
from tinyflamingo.interop import decoder_names, names, open_flamingo, peers
from tinyflamingo.interop.encoders import ENCODERS, read_encoder, write_encoder
from tinyflamingo.interop.open_flamingo import Arrays
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.byte_bpe import ByteTokenizer
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.registry import config_from_dict, config_to_dict, part_from_dict, part_to_dict

SOURCES = (*peers.PORTS, "transformers", *ENCODERS)
CARD_KEYS = {"peer", "part", "config"}  # of the JSON beside a part
KINDS = ("resampler", "xattn", "language", "vision")
SECTIONS = {  # a port's prefixes of its resampler and of the gated block of decoder block i
    "flamingo-pytorch": ("perceiver_resampler.", "layers.{}.1."),
    "flamingo-mini": ("resampler.", "lm.h.{}.xattn_block."),
    "open_flamingo": ("perceiver.", "lang_encoder.gated_cross_attn_layers.{}."),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Information that is not in the tensors."""

    prefix: str = ""  # of the peer's names: only names that begin with it are read; all written names begin with it
    head_size: int = peers.HEAD_SIZE
    config: Path | None = None  # the decoder's config.json; None: the one beside the weights
    tokenizer: Path | None = None  # the decoder's tokenizer.json; None: the one beside the weights


class Part(NamedTuple):
    """A part of a model: its arrays {our path: array}, and the content of the JSON beside it."""

    flat: Params
    card: dict


# ---------------------------------------------------------------- from a peer


def convert_from(peer: str, paths: Sequence[Path], out: Path, options: Options = Options()) -> str:
    """Read a peer's files and write ours. Returns one line about the written files."""
    if peer not in SOURCES:
        raise UserError(f"--from is {peer!r} but must be one of {', '.join(SOURCES)}")
    files = [read_arrays(path) for path in paths]
    if peer == "open_flamingo" and not options.prefix and any(_is_whole(tensors) for tensors in files):
        return _whole_from(files, paths, out, options)
    if len(files) > 1:
        raise UserError(f"--from {peer} reads one file or folder at a time, but there are {len(files)}")
    tensors = {n.removeprefix(options.prefix): a for n, a in files[0].items() if n.startswith(options.prefix)}
    if peer in ENCODERS:
        part = Part(*read_encoder(peer, tensors))
    else:
        part = _language_part(tensors, paths, options) if peer == "transformers" else _port_part(peer, tensors, options)
    _check_ending(out)
    sizes = _free_card(out)
    shapes = {name: array.shape for name, array in part.flat.items()}
    write_atomically(out, chunks(out.suffix, shapes, part.flat.__getitem__))
    write_atomically(sizes, json.dumps(part.card, indent=1).encode())
    return f"{part.card['part']} of {peer}: {_counted(shapes)} written to {out}, sizes to {sizes}"


def _free_card(out) -> Path:
    """The path of the JSON beside a part. `UserError` if a file is there that `convert` did not write."""
    path = out.with_suffix(".json")
    if not path.exists() and not path.is_symlink():
        return path
    try:
        card = read_json(path)
    except (OSError, ValueError, RecursionError):
        card = None
    if not isinstance(card, dict) or set(card) != CARD_KEYS or card["part"] not in KINDS:
        raise UserError(
            f"cannot write {path} for {out.name}: a file that convert did not write is there; give another name to --to"
        )
    return path


def _is_whole(tensors):
    return any(name.removeprefix("module.").startswith(("perceiver.", "lang_encoder.")) for name in tensors)


def _port_part(peer, tensors, options) -> Part:
    if "latents" in tensors:
        resampler = peers.resampler_config(peer, tensors, options.head_size)
        rows, kind, sizes = names.resampler_rows(peer, resampler), "resampler", part_to_dict("resampler", resampler)
    elif "attn.to_q.weight" in tensors:
        config = peers.xattn_config(peer, tensors, options.head_size)
        rows, kind, sizes = names.xattn_rows(peer, config), "xattn", config_to_dict(config)
    else:
        raise UserError(
            f"--from {peer}: there is neither a resampler (latents) nor a gated block (attn.to_q.weight); to read a "
            f"part of a whole model, give --prefix {SECTIONS[peer][0]} or --prefix {SECTIONS[peer][1].format(0)}"
        )
    return Part(_checked(rows, tensors, peer), {"peer": peer, "part": kind, "config": sizes})


def _language_part(tensors, paths, options) -> Part:
    config = decoder_names.read_hugging_face_config(_beside(options.config, paths, "config.json", "--config"))
    rows = decoder_names.language_rows(config, ours="language/")
    flat = _checked(rows, decoder_names.tidy(tensors, config), "transformers")
    return Part(flat, {"peer": "transformers", "part": "language", "config": part_to_dict("language", config)})


def _checked(rows, tensors, where):
    return named_leaves(names.import_arrays(rows, tensors, where))


def _whole_from(files, paths, out, options):
    language = decoder_names.read_hugging_face_config(_beside(options.config, paths, "config.json", "--config"))
    words = read_regular(_beside(options.tokenizer, paths, "tokenizer.json", "--tokenizer"), LARGEST_JSON)
    imported = open_flamingo.import_checkpoint(files, language, words)
    save_mapped(out, imported.config, imported.tokenizer, *imported.arrays, {"peer": "open_flamingo"})
    return f"open_flamingo: {_counted(imported.arrays.shapes)} written to the checkpoint {out}"


def _beside(given, paths, name, option) -> Path:
    """The given file; None: the file of this name in one of the given folders."""
    for path in [given] if given else [Path(path) / name for path in paths]:
        if path.is_file():
            return path
    raise UserError(f"{given} is not a file" if given else f"no {name} beside the weights: give one with {option}")


# ---------------------------------------------------------------- to a peer


def convert_to(peer: str, path: Path, out: Path, options: Options = Options()) -> str:
    """Write our checkpoint, or a part that `convert_from` wrote, in a peer's names."""
    if peer not in SOURCES:
        raise UserError(f"--to is {peer!r} but must be one of {', '.join(SOURCES)}")
    _check_ending(out)
    arrays = _checkpoint_to(peer, path) if path.is_dir() else _part_to(peer, path)
    shapes = {options.prefix + name: shape for name, shape in arrays.shapes.items()}
    write_atomically(out, chunks(out.suffix, shapes, lambda name: arrays.get(name.removeprefix(options.prefix))))
    return f"for {peer}: {_counted(shapes)} written to {out}"


def _checkpoint_to(peer, folder) -> Arrays:
    model = load_checkpoint(folder)
    if peer == "open_flamingo" and isinstance(model.tokenizer, ByteTokenizer):
        return open_flamingo.export_checkpoint(model.config, model.params, model.frozen, model.tokenizer)
    if peer in ENCODERS:
        flat = named_leaves({"vision": model.frozen["vision"], **model.frozen["contrastive"]})
        return _held(write_encoder(peer, _of_encoder(flat), config_to_dict(model.config)["vision"]))
    if peer == "transformers":
        raise UserError("--to transformers takes a decoder that --from transformers wrote, not a checkpoint")
    peers.check_conventions(model.config, peer)
    resampler, block = SECTIONS[peer]
    rows = names.resampler_rows(peer, model.config.resampler, resampler)
    for i in model.config.gated_layers:
        rows += names.xattn_rows(peer, model.config, block.format(i), f"xattn_{i}/")
    parts = {n: a for n, a in model.params.items() if n == "resampler" or n.startswith("xattn_")}
    return _lazy(rows, named_leaves(parts), peer)


def _part_to(peer, path) -> Arrays:
    flat, card = read_arrays(path), _read_card(path.with_suffix(".json"))
    if (card["part"] == "vision") != (peer in ENCODERS):
        raise UserError(f"{path} is a {card['part']} part, which {peer} does not have")
    if card["part"] == "language" and peer != "transformers":
        raise UserError(f"{path} is a decoder: convert it to transformers, not to {peer}")
    if card["part"] in ("resampler", "xattn") and peer == "transformers":
        raise UserError(f"{path} is a {card['part']} part, which transformers does not have")
    config = _config_of(card, path.with_suffix(".json"))
    if card["part"] == "vision":
        return _held(write_encoder(peer, _of_encoder(flat), card["config"]))
    if card["part"] == "language":
        return _lazy(decoder_names.language_rows(config, ours="language/"), flat, peer)
    rows = names.resampler_rows if card["part"] == "resampler" else names.xattn_rows
    return _lazy(rows(peer, config), flat, peer)


def _config_of(card, path):
    """The configuration in the JSON beside a part."""
    part = card["part"]
    try:
        config = config_from_dict(card["config"]) if part == "xattn" else part_from_dict(part, card["config"])
        if part == "language" and not isinstance(config, PublicDecoderConfig):
            raise UserError(f"kind {card['config']['kind']!r} is not a public decoder")
        return config
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path} does not hold the sizes of a {part} ({error}): convert the part again") from error


def _of_encoder(flat):
    """The arrays that a peer's encoder has: not the constants that standardise features."""
    return {n: a for n, a in flat.items() if n.startswith("vision/") or n == "picture_projection"}


def _held(tensors) -> Arrays:
    return Arrays({name: array.shape for name, array in tensors.items()}, tensors.__getitem__)


def _lazy(rows, flat, peer) -> Arrays:
    """Arrays in a peer's names, made one at a time, after the same check as in an import."""
    names.check(names.our_shapes(rows), {n: a.shape for n, a in flat.items()}, f"for {peer}")
    by_name = {row.theirs: row for row in rows}
    return Arrays({n: row.shape for n, row in by_name.items()}, lambda name: names.give(by_name[name], flat))


def _read_card(path):
    try:
        card = read_json(path)
        if card["part"] not in KINDS:
            raise ValueError(f"part {card['part']!r}")
        return card
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read {path}, the JSON that convert writes beside a part ({error})") from error


def _check_ending(out):
    if out.suffix not in ENDINGS:
        raise UserError(f"cannot write {out}: the name of a weights file must end in {' or '.join(ENDINGS)}")


def _counted(shapes) -> str:
    return f"{len(shapes)} tensors, {sum(map(math.prod, shapes.values())):,} numbers"
