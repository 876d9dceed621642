"""Names of GPT-2, OPT and MPT decoders in Hugging Face's `transformers`, and their sizes (chapter §4).

A folder of `transformers` has a `config.json` with sizes and conventions. A field that changes the
arithmetic and has another value than ours is an error. MPT-1B, the decoder of OpenFlamingo-3B, has its own
names ("mosaic_gpt").

Not here: the arithmetic (`variants/decoders.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.files import read_json
from tinyflamingo.interop.names import Row, prefixed
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.decoders import ALIBI_MAX, FAMILIES, PublicDecoderConfig


class Names(NamedTuple):
    """The names of a family's parts. Norms and layers are without `.weight` and `.bias`."""

    root: str  # before all names
    table: str
    positions: str | None
    blocks: str
    final: str
    attn_norm: str
    qkv: tuple[str, ...]  # three layers, or one layer for all three
    out: str
    ffw_norm: str
    up: str
    down: str
    qk_norm: tuple[str, ...] = ()
    form: str = "linear"  # of the matrices; "same" for GPT-2, which has (in, out) as we do


NAMES = {
    "gpt2": Names(
        "transformer.", "wte", "wpe", "h", "ln_f", "ln_1", ("attn.c_attn",), "attn.c_proj", "ln_2", "mlp.c_fc",
        "mlp.c_proj", form="same",
    ),
    "opt": Names(
        "model.decoder.", "embed_tokens", "embed_positions", "layers", "final_layer_norm", "self_attn_layer_norm",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.out_proj", "final_layer_norm",
        "fc1", "fc2",
    ),
    "mpt": Names(
        "transformer.", "wte", None, "blocks", "norm_f", "norm_1", ("attn.Wqkv",), "attn.out_proj", "norm_2",
        "ffn.up_proj", "ffn.down_proj",
    ),
    "mosaic_gpt": Names(
        "transformer.", "wte", None, "blocks", "ln_f", "ln_1", ("attn.Wqkv",), "attn.out_proj", "ln_2",
        "mlp.mlp_up", "mlp.mlp_down", ("attn.q_ln", "attn.k_ln"),
    ),
}  # fmt: skip


def language_rows(
    config: PublicDecoderConfig, theirs: str = "", ours: str = "", inside: str = "", tables: bool = True
) -> list[Row]:
    """The table of a decoder. inside: the part of a name between a block's number and the name of a layer.

    tables: with the token embedding. That of a Flamingo has new rows and is handled in `open_flamingo.py`.
    """
    names, family, D = NAMES[config.family], FAMILIES[config.family], config.width
    rows = [Row(f"{names.table}.weight", ("embedding",), (config.vocab_size, D))] if tables else []
    if names.positions and family.positions is not None:
        rows.append(Row(f"{names.positions}.weight", ("position",), (config.context + family.positions, D)))
    for i in range(config.layers):
        rows += prefixed(_block_rows(config), f"{names.blocks}.{i}.{inside}", f"block_{i}/")
    rows += _norm(names.final, "final", D, family.biases)
    return prefixed(rows, theirs + names.root, ours)


def _block_rows(config):
    names, family = NAMES[config.family], FAMILIES[config.family]
    D, inner, hidden = config.width, config.heads * config.key_size, config.ffw_multiplier * config.width
    rows = _norm(names.attn_norm, "attn", D, family.biases)
    if len(names.qkv) == 1:
        rows += _layer(names, names.qkv[0], "qkv", D, 3 * inner, family.biases)
    else:
        for theirs, ours in zip(names.qkv, "qkv", strict=True):
            rows += _layer(names, theirs, ours, D, inner, family.biases)
    for theirs, ours in zip(names.qk_norm, "qk", strict=False):
        rows += _norm(theirs, ours, inner, False)
    rows += _layer(names, names.out, "o", inner, D, family.biases)
    rows += _norm(names.ffw_norm, "ffw", D, family.biases)
    rows += _layer(names, names.up, "1", D, hidden, family.biases)
    return rows + _layer(names, names.down, "2", hidden, D, family.biases)


def _norm(theirs, ours, D, biases):
    rows = [Row(f"{theirs}.weight", (f"{ours}_gain",), (D,)), Row(f"{theirs}.bias", (f"{ours}_bias",), (D,))]
    return rows if biases else rows[:1]


def _layer(names, theirs, ours, inputs, outputs, biases):
    """A layer for each letter of `ours`. If there are several, the peer stacks them."""
    shape = (outputs, inputs) if names.form == "linear" else (inputs, outputs)
    rows = [Row(f"{theirs}.weight", tuple(f"w_{x}" for x in ours), shape, names.form)]
    return rows + [Row(f"{theirs}.bias", tuple(f"b_{x}" for x in ours), (outputs,))] if biases else rows


def tidy(tensors: Params, config: PublicDecoderConfig) -> Params:
    """A decoder's {name: array} with the root prefix, without buffers and without the tied head.

    Raises `UserError` if the head is not equal to the table of embeddings.
    """
    names = NAMES[config.family]
    bare = names.root.split(".", 1)[1]  # a model without a head is saved without the first part of the root
    if not any(name.startswith(names.root) for name in tensors):
        tensors = {names.root + name.removeprefix(bare): a for name, a in tensors.items()}
    kept = {n: a for n, a in tensors.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
    head, table = kept.pop("lm_head.weight", None), kept.get(f"{names.root}{names.table}.weight")
    if head is not None and (table is None or not np.array_equal(head, table)):
        raise UserError("lm_head.weight differs from the embeddings: only a decoder with a tied head can be read")
    return kept


# ---------------------------------------------------------------- config.json


def read_hugging_face_config(path: str | Path) -> PublicDecoderConfig:
    """The `PublicDecoderConfig` of a `config.json`. Raises `UserError` for conventions that we do not compute."""
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a dictionary")
    return hugging_face_config(raw, str(path))


def hugging_face_config(raw: dict, where: str = "config.json") -> PublicDecoderConfig:
    """The `PublicDecoderConfig` of the dictionary in a `config.json`."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in SIZES:
        raise UserError(f"{where}: model_type is {kind!r} but must be one of {', '.join(map(repr, SIZES))}")
    inner = raw.get("attn_config") or {}
    if not isinstance(inner, dict):
        raise UserError(f"{where}: attn_config is {inner!r} but must be a dictionary")
    flat: dict[str, Any] = ABSENT.get(kind, {}) | raw | inner
    for field, value in FIXED[kind].items():
        if flat.get(field, value) != value:
            raise UserError(f"{where}: {field} is {flat[field]!r}, but only {value!r} is supported")
    names = ("vocab_size", *SIZES[kind])
    sizes = {name: flat.get(name) for name in names if name != names[-1] or flat.get(name) is not None}
    wrong = [name for name, value in sizes.items() if not isinstance(value, int) or value < 1]
    if wrong:
        raise UserError(f"{where}: {wrong[0]} is {sizes[wrong[0]]!r} but must be a whole number of at least 1")
    V, width, layers, heads, context, hidden = (flat.get(name, 0) for name in names)
    hidden = (hidden or 4) * width if kind in ("mpt", "mosaic_gpt") else hidden or 4 * width
    if width % heads or hidden % width:
        raise UserError(
            f"{where}: the width {width} must be a multiple of the {heads} heads, and the hidden width {hidden} a "
            "multiple of the width"
        )
    if kind == "mosaic_gpt" and heads & (heads - 1):
        raise UserError(f"{where}: n_heads is {heads} but must be a power of two: else ALiBi differs between releases")
    return PublicDecoderConfig(V, width, layers, heads, width // heads, hidden // width, context, kind)


SIZES = {  # width, layers, heads, context, hidden width (MPT: in multiples of the width; absent: 4 times the width)
    "gpt2": ("n_embd", "n_layer", "n_head", "n_positions", "n_inner"),
    "opt": ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "ffn_dim"),
    "mpt": ("d_model", "n_layers", "n_heads", "max_seq_len", "expansion_ratio"),
    "mosaic_gpt": ("d_model", "n_layers", "n_heads", "max_seq_len", "mlp_ratio"),
}
ABSENT = {"mosaic_gpt": {"alibi": False, "attn_qk_ln": False, "no_bias": False}}  # values of absent fields
FIXED: dict[str, dict] = {  # a field must have this value, or be absent
    "gpt2": {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    "opt": {
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
    },
    "mpt": {
        "alibi": True,
        "alibi_bias_max": ALIBI_MAX,
        "attn_type": "multihead_attention",
        "clip_qkv": None,
        "softmax_scale": None,
        "qk_ln": False,
        "prefix_lm": False,
        "logit_scale": None,
        "no_bias": True,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "mosaic_gpt": {
        "alibi": True,
        "alibi_bias_max": ALIBI_MAX,
        "attn_qk_ln": True,
        "attn_clip_qkv": None,
        "softmax_scale": None,
        "prefix_lm": False,
        "logit_scale": None,
        "no_bias": True,
    },
}
