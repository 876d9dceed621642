"""Whole checkpoints of OpenFlamingo (chapter §1): CLIP's image tower, decoder, resampler and gated blocks.

OpenFlamingo names a decoder layer `lang_encoder.<blocks>.<i>.decoder_layer` and the gated block before it
`….gated_cross_attn_layer`; a full `state_dict` holds both a second time under other names. A published
checkpoint holds only the trained parts: resampler, gated blocks and the table of embeddings, with new rows
for `<|endofchunk|>` and `<image>`. Decoder and image tower are separate files. The functions here take all
files together; they change no array and keep none twice in memory.

Not here: the names inside the parts (`names.py`, `decoder_names.py`, `vit_names.py`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.interop import names, peers
from tinyflamingo.interop.decoder_names import NAMES, language_rows
from tinyflamingo.interop.vit_names import vit_config, vit_rows
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.variants.byte_bpe import ByteTokenizer, find_vocabulary
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.vit import ViTConfig

PEER = "open_flamingo"
LM, VISION, RESAMPLER = "lang_encoder.", "vision_encoder.", "perceiver."
TABLE, EOC = "frozen/language/embedding", "params/eoc"


class Arrays(NamedTuple):
    """Named arrays of known shapes, for `array_files.chunks`. get(name) makes an array when it is needed."""

    shapes: dict[str, tuple]
    get: Callable[[str], Array]


class Imported(NamedTuple):
    """A checkpoint in our names, for `checkpoint.save_mapped`."""

    config: FlamingoConfig
    tokenizer: ByteTokenizer
    arrays: Arrays


def import_checkpoint(files: Sequence[Params], language: PublicDecoderConfig, tokenizer: bytes) -> Imported:
    """OpenFlamingo's checkpoint as ours. files: {name: array} of each file; language: of the decoder's `config.json`.

    tokenizer: the decoder's `tokenizer.json`. Raises `UserError` with the names of tensors that are unknown,
    missing or of another shape.
    """
    tensors = gather(files, language.family)
    table = tensors.pop(_table(language))
    vocabulary = find_vocabulary(tokenizer, len(table))
    order = vocabulary.order()
    config = read_config(tensors, language, len(order) - 1)
    rows = checkpoint_rows(config, "vision_encoder.proj" in tensors)
    names.check({r.theirs: r.shape for r in rows}, {n: a.shape for n, a in tensors.items()}, PEER)
    flat: Params = {}
    for row in rows:
        flat |= names.take(row, tensors[row.theirs])
    Dv = config.vision.width
    flat |= {"frozen/feature_mean": np.zeros(Dv, np.float32), "frozen/feature_scale": np.ones(Dv, np.float32)}
    shapes = {n: a.shape for n, a in flat.items()} | {TABLE: (len(order) - 1, table.shape[1]), EOC: table.shape[1:]}

    def get(name):
        return table[order[:-1]] if name == TABLE else table[order[-1]] if name == EOC else flat[name]

    return Imported(config, ByteTokenizer(tokenizer, vocabulary), Arrays(shapes, get))


def export_checkpoint(config: FlamingoConfig, params: Params, frozen: Params, tokenizer: ByteTokenizer) -> Arrays:
    """OpenFlamingo's arrays of a model with its conventions. OpenFlamingo loads them with `strict=False`, because
    they do not include its second names of the same tensors."""
    peers.check_conventions(config, PEER)
    _, language = _public_parts(config)
    flat = named_leaves({"params": params, "frozen": frozen})
    rows = {row.theirs: row for row in checkpoint_rows(config, "frozen/contrastive/picture_projection" in flat)}
    order, table = tokenizer.vocabulary.order(), _table(language)
    ours = dict(zip(order[:-1], range(len(order) - 1), strict=True))
    shapes = {n: row.shape for n, row in rows.items()} | {table: (tokenizer.vocabulary.size, language.width)}

    def get(name):
        if name != table:
            return names.give(rows[name], flat)
        embeddings = flat[TABLE][[ours.get(i, 0) for i in range(tokenizer.vocabulary.size)]]
        embeddings[tokenizer.vocabulary.eoc] = flat[EOC]
        return embeddings

    return Arrays(shapes, get)


def _public_parts(config: FlamingoConfig) -> tuple[ViTConfig, PublicDecoderConfig]:
    """Image tower and decoder, if they are public ones."""
    vision, language = config.vision, config.language
    if not isinstance(vision, ViTConfig) or not isinstance(language, PublicDecoderConfig):
        raise UserError(f"{PEER} needs CLIP's image tower and a public decoder: this model has other parts")
    return vision, language


def checkpoint_rows(config: FlamingoConfig, projection: bool = True) -> list[names.Row]:
    """The table of all arrays except the embeddings. projection: with CLIP's projection, which is not used."""
    vision, language = _public_parts(config)
    rows = vit_rows(vision, config.text_tower.joint_width if projection else None, VISION, "vision/")
    rows = names.prefixed(rows, "", "frozen/")
    rows += names.resampler_rows(PEER, config.resampler, RESAMPLER, "params/resampler/")
    blocks = NAMES[language.family].root + NAMES[language.family].blocks
    for i in config.gated_layers:
        rows += names.xattn_rows(PEER, config, f"{LM}{blocks}.{i}.gated_cross_attn_layer.", f"params/xattn_{i}/")
    return rows + language_rows(language, LM, "frozen/language/", "decoder_layer.", tables=False)


def read_config(tensors: Params, language: PublicDecoderConfig, vocab_size: int) -> FlamingoConfig:
    """The configuration of a full set of {name: array}. vocab_size: ours, without `<EOC>`."""
    vision: Any = vit_config(tensors, VISION)  # in place of the chapter's NF-ResNet
    part = {n.removeprefix(RESAMPLER): a for n, a in tensors.items() if n.startswith(RESAMPLER)}
    gated: dict[int, Params] = {}
    for name, array in tensors.items():
        if match := re.match(rf"{LM}.*\.(\d+)\.gated_cross_attn_layer\.(.*)", name):
            gated.setdefault(int(match[1]), {})[match[2]] = array
    if not gated:
        raise UserError(f"{PEER}: no file has a gated_cross_attn_layer; give the checkpoint itself, too")
    first = min(gated)
    every = first + 1  # OpenFlamingo has gated blocks at every - 1, 2 every - 1, ...
    block: Any = peers.xattn_config(PEER, gated[first]).xattn
    projection = tensors.get(f"{VISION}proj")
    return FlamingoConfig(
        vision=vision,
        text_tower=TextTowerConfig(
            vocab_size=vocab_size, joint_width=64 if projection is None else projection.shape[1]
        ),
        resampler=peers.resampler_config(PEER, part),
        language=dataclasses.replace(language, vocab_size=vocab_size),
        xattn=dataclasses.replace(block, every=every, start=first),
    )


# ---------------------------------------------------------------- several files, several names


def gather(files: Sequence[Params], decoder: str) -> Params:
    """The {name: array} of several files together, in the names of a full `state_dict`, each tensor once.

    The checkpoint's table of embeddings, which has the new rows, replaces the decoder's. Raises `UserError`
    if a tensor has different numbers under two names.
    """
    gathered: Params = {}
    table = f"{LM}{NAMES[decoder].root}{NAMES[decoder].table}.weight"
    ordered = sorted(files, key=lambda tensors: any(name.startswith(RESAMPLER) for name in tensors))
    for tensors in ordered:
        own: Params = {}
        for name, array in tensors.items():
            _add(own, full_name(name, decoder), array)
        head = own.pop(f"{LM}lm_head.weight", None)
        if head is not None and not (table in own and np.array_equal(head, own[table])):
            raise UserError(f"{PEER}: lm_head.weight differs from the embeddings: only a tied head can be read")
        for name, array in own.items():
            if name == table:
                gathered[name] = array
            else:
                _add(gathered, name, array)
    if table not in gathered:
        raise UserError(f"{PEER}: {table} is missing; does config.json belong to this checkpoint's decoder?")
    return gathered


def _add(tensors, name, array):
    if name in tensors and not np.array_equal(tensors[name], array):
        raise UserError(f"{PEER}: {name} is in the files twice, with different numbers")
    tensors[name] = array


def full_name(name: str, decoder: str) -> str:
    """The name in the full model, for a name in a file of the decoder or the tower alone, or for a second name."""
    known = NAMES[decoder]
    name = name.removeprefix("module.")
    if name.startswith("visual."):
        return VISION + name.removeprefix("visual.")
    if name.startswith((known.root, "lm_head.")):
        name = LM + re.sub(rf"^({re.escape(known.root + known.blocks)}\.\d+\.)", r"\1decoder_layer.", name)
    blocks = f"{LM}{known.root}{known.blocks}."
    name = re.sub(rf"^{LM}old_decoder_blocks\.(\d+)\.", rf"{blocks}\1.decoder_layer.", name)
    return re.sub(rf"^{LM}gated_cross_attn_layers\.(\d+)\.", rf"{blocks}\1.gated_cross_attn_layer.", name)


def _table(language: PublicDecoderConfig) -> str:
    return f"{LM}{NAMES[language.family].root}{NAMES[language.family].table}.weight"
