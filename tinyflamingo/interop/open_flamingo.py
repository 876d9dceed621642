"""Whole checkpoints of OpenFlamingo: CLIP's image tower, a decoder, resampler and gated blocks.

The program names a decoder layer `lang_encoder.<blocks>.<i>.decoder_layer` and the gated block before
it `….gated_cross_attn_layer`; a full `state_dict` holds both once more under other names. Published
checkpoints hold what was trained alone: resampler, gated blocks and the table of embeddings, with new
rows for `<|endofchunk|>` and `<image>`; decoder and image tower are files of their own. All of them
are given together here, and none of them is changed or held twice.

Not here: the names inside the parts (`names.py`, `decoder_names.py`, `vit_names.py`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.interop import names, peers
from tinyflamingo.interop.decoder_names import NAMES, language_rows
from tinyflamingo.interop.vit_names import vit_config, vit_rows
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants.byte_bpe import ByteTokenizer, find_vocabulary
from tinyflamingo.variants.decoders import PublicDecoderConfig

PEER = "open_flamingo"
LM, VISION, RESAMPLER = "lang_encoder.", "vision_encoder.", "perceiver."
TABLE, EOC = "frozen/language/embedding", "params/eoc"


class Arrays(NamedTuple):
    """Named arrays of known shapes, each made when it is asked for: what `files.chunks` writes."""

    shapes: dict
    get: Callable


class Imported(NamedTuple):
    """A checkpoint in our names, for `convert.save_mapped`."""

    config: FlamingoConfig
    tokenizer: ByteTokenizer
    arrays: Arrays


def import_checkpoint(files, language: PublicDecoderConfig, tokenizer: bytes, norm_features=False) -> Imported:
    """Ours of OpenFlamingo's. files: {name: array} of each file; language: from the decoder's `config.json`.

    tokenizer: the decoder's `tokenizer.json`. norm_features: see `vit_names.vit_config`. Tensors that
    are unknown, missing or of another shape are a `UserError` that names them.
    """
    tensors = gather(files, language.family)
    table = tensors.pop(_table(language))
    vocabulary = find_vocabulary(tokenizer, len(table))
    order = vocabulary.order()
    config = read_config(tensors, language, len(order) - 1, norm_features)
    rows = checkpoint_rows(config, "vision_encoder.proj" in tensors)
    names.check({r.theirs: r.shape for r in rows}, {n: a.shape for n, a in tensors.items()}, PEER)
    flat: dict = {}
    for row in rows:
        flat |= names.take(row, tensors[row.theirs])
    Dv = config.vision.width
    flat |= {"frozen/feature_mean": np.zeros(Dv, np.float32), "frozen/feature_scale": np.ones(Dv, np.float32)}
    shapes = {n: a.shape for n, a in flat.items()} | {TABLE: (len(order) - 1, table.shape[1]), EOC: table.shape[1:]}

    def get(name):
        return table[order[:-1]] if name == TABLE else table[order[-1]] if name == EOC else flat[name]

    return Imported(config, ByteTokenizer(tokenizer, vocabulary), Arrays(shapes, get))


def export_checkpoint(config: FlamingoConfig, params, frozen, tokenizer: ByteTokenizer) -> Arrays:
    """OpenFlamingo's names and shapes of a model that has its parts: loads with `strict=False`, for the
    program's second names of the same tensors are not written."""
    peers.check_conventions(config, PEER)
    flat = named_leaves({"params": params, "frozen": frozen})
    rows = {row.theirs: row for row in checkpoint_rows(config, "frozen/contrastive/picture_projection" in flat)}
    order, D = tokenizer.vocabulary.order(), config.language.width
    ours = dict(zip(order[:-1], range(len(order) - 1), strict=True))
    shapes = {n: row.shape for n, row in rows.items()} | {_table(config.language): (tokenizer.vocabulary.size, D)}

    def get(name):
        if name != _table(config.language):
            return names.give(rows[name], flat)
        eoc = tokenizer.vocabulary.eoc
        found = flat[TABLE][[ours.get(i, 0) for i in range(tokenizer.vocabulary.size)]]
        found[eoc] = flat[EOC]
        return found

    return Arrays(shapes, get)


def checkpoint_rows(config: FlamingoConfig, projection=True) -> list:
    """The table of everything but the embeddings. projection: with CLIP's, which nobody uses."""
    joint = config.text_tower.joint_width if projection else None
    rows = vit_rows(config.vision, joint, VISION, "vision/")
    rows = names.prefixed(rows, "", "frozen/")
    rows += names.resampler_rows(PEER, config.resampler, RESAMPLER, "params/resampler/")
    blocks = NAMES[config.language.family].root + NAMES[config.language.family].blocks
    for i in config.gated_layers:
        rows += names.xattn_rows(PEER, config, f"{LM}{blocks}.{i}.gated_cross_attn_layer.", f"params/xattn_{i}/")
    return rows + language_rows(config.language, LM, "frozen/language/", "decoder_layer.", tables=False)


def read_config(tensors, language: PublicDecoderConfig, vocab_size, norm_features) -> FlamingoConfig:
    """The configuration that a full set of {name: array} has. vocab_size: ours, without `<EOC>`."""
    vision = vit_config(tensors, VISION, norm_features=norm_features)
    part = {n.removeprefix(RESAMPLER): a for n, a in tensors.items() if n.startswith(RESAMPLER)}
    gated: dict = {}
    for name, array in tensors.items():
        if match := re.match(rf"{LM}.*\.(\d+)\.gated_cross_attn_layer\.(.*)", name):
            gated.setdefault(int(match[1]), {})[match[2]] = array
    if not gated:
        raise UserError(f"{PEER}: no gated_cross_attn_layer in the files: is the checkpoint itself among them?")
    places = sorted(gated)
    every = places[0] + 1  # its program has them at every - 1, 2 every - 1, ...
    block = peers.xattn_config(PEER, gated[places[0]]).xattn
    projection = tensors.get(f"{VISION}proj")
    return FlamingoConfig(
        vision=vision,
        text_tower=TextTowerConfig(
            vocab_size=vocab_size, joint_width=64 if projection is None else projection.shape[1]
        ),
        resampler=peers.resampler_config(PEER, part),
        language=dataclasses.replace(language, vocab_size=vocab_size),
        xattn=dataclasses.replace(block, every=every, start=places[0]),
    )


# ---------------------------------------------------------------- several files, several names


def gather(files, decoder) -> dict:
    """One {name: array} in the names of a full `state_dict`, each tensor once, of several files.

    The checkpoint's own table of embeddings, with its new rows, wins over the decoder's. What is
    there under two names must be equal, or it is a `UserError`.
    """
    found: dict = {}
    table = f"{LM}{NAMES[decoder].root}{NAMES[decoder].table}.weight"
    ordered = sorted(files, key=lambda tensors: any(name.startswith(RESAMPLER) for name in tensors))
    for tensors in ordered:
        own: dict = {}
        for name, array in tensors.items():
            _add(own, full_name(name, decoder), array)
        head = own.pop(f"{LM}lm_head.weight", None)
        if head is not None and not np.array_equal(head, own.get(table)):
            raise UserError(f"{PEER}: lm_head.weight differs from the embeddings: this decoder's head is not tied")
        for name, array in own.items():
            if name == table:
                found[name] = array
            else:
                _add(found, name, array)
    if table not in found:
        raise UserError(f"{PEER}: {table} is missing; is config.json that of this checkpoint's decoder?")
    return found


def _add(found, name, array):
    if name in found and not np.array_equal(found[name], array):
        raise UserError(f"{PEER}: {name} is in the files twice, with different numbers")
    found[name] = array


def full_name(name, decoder) -> str:
    """A tensor's name in the full model: of a file of the decoder or the tower alone, or a second name."""
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


def as_tree(arrays: Arrays) -> dict:
    """All arrays at once, as nested dicts: for models that fit into memory as they are."""
    return from_named_leaves({name: arrays.get(name) for name in arrays.shapes})
