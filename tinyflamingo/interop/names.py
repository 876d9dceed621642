"""Tables of the public ports' tensor names, and import and export with such a table (chapter §3 and §4).

A table is a list of `Row`s: the peer's name and shape, our paths, and the change of form. Our matrices are
(in, out), a torch Linear is (out, in). A peer can stack several of our arrays into one tensor (for example
keys and values). The same table serves import and export.

Here: resampler and gated block, which `flamingo-pytorch`, `open_flamingo` and `flamingo-mini` all have.
Not here: decoders (`decoder_names.py`), whole checkpoints (`open_flamingo.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.ops.types import Array, Params

LISTED = 6  # an error lists this many names of each kind


class Row(NamedTuple):
    """One tensor of a peer."""

    theirs: str
    ours: tuple[str, ...]  # our paths; more than one if the peer stacks our arrays
    shape: tuple[int, ...]  # the peer's
    form: str = "same"  # a name in `FORMS`


FORMS = {  # (the peer's array to ours, ours to the peer's with the peer's shape)
    "same": (lambda a: a, lambda a, shape: a),
    "linear": (lambda a: a.T, lambda a, shape: a.T),
    "scalar": (lambda a: a.reshape(()), lambda a, shape: a.reshape(shape)),  # () for (1,)
    "place": (lambda a: a[:, 0], lambda a, shape: a.reshape(shape)),  # (N, D) for (N, 1, D)
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a, shape: a.transpose(3, 2, 0, 1)),  # (y, x, c, D)
    "channel": (lambda a: a[:, 0, 0, 0], lambda a, shape: a.reshape(shape)),  # (D,) for (D, 1, 1, 1)
    "pixel": (lambda a: a[:, :, 0, 0].T, lambda a, shape: a.T.reshape(shape)),  # a Linear stored as a convolution
    "patch": (  # (y x c, D) for the (D, c, y, x) of a convolution
        lambda a: np.transpose(a, (2, 3, 1, 0)).reshape(-1, a.shape[0]),
        lambda a, shape: np.transpose(a.reshape(*shape[2:], shape[1], shape[0]), (3, 2, 0, 1)),
    ),
}


def take(row: Row, array: Array) -> Params:
    """{our path: array} from a peer's tensor: views of it, if possible."""
    parts = np.split(array, len(row.ours), axis=_stacking(row)) if len(row.ours) > 1 else [array]
    return {path: FORMS[row.form][0](part) for path, part in zip(row.ours, parts, strict=True)}


def give(row: Row, flat: Params) -> Array:
    """The peer's tensor from our {path: array}: the inverse of `take`."""
    parts = [FORMS[row.form][1](flat[path], row.shape) for path in row.ours]
    return np.concatenate(parts, axis=_stacking(row)) if len(parts) > 1 else parts[0]


def _stacking(row):
    return 0 if row.form == "linear" else -1


def our_shapes(rows: Iterable[Row]) -> dict[str, tuple]:
    """{our path: shape} of a table, without arrays in memory."""
    return {
        path: part.shape for row in rows for path, part in take(row, np.broadcast_to(np.float32(0), row.shape)).items()
    }


def import_arrays(rows: list[Row], tensors: Params, where: str) -> Params:
    """Our nested dict from a peer's {name: array}. `UserError` for unknown or missing names and wrong shapes."""
    check({row.theirs: row.shape for row in rows}, {n: a.shape for n, a in tensors.items()}, where)
    flat: Params = {}
    for row in rows:
        flat |= take(row, tensors[row.theirs])
    return from_named_leaves(flat)


def export_arrays(rows: list[Row], tree: Params, where: str) -> Params:
    """A peer's {name: array} from our nested dict, with the same check of our names and shapes."""
    flat = named_leaves(tree)
    check(our_shapes(rows), {n: np.shape(a) for n, a in flat.items()}, where)
    return {row.theirs: give(row, flat) for row in rows}


def check(want: Mapping[str, tuple], have: Mapping[str, tuple], where: str) -> None:
    """`UserError` that lists missing names, unknown names, and names with another shape, with both shapes."""
    missing = [f"{n} {want[n]}" for n in want if n not in have]
    unknown = [f"{n} {have[n]}" for n in have if n not in want]
    shapes = [f"{n} is {have[n]}, expected {want[n]}" for n in want if n in have and tuple(have[n]) != tuple(want[n])]
    faults = [
        f"{len(names)} {kind}: {', '.join(names[:LISTED])}{' ...' if len(names) > LISTED else ''}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise UserError(f"{where}: the tensors do not fit; {'; '.join(faults)}")


# ---------------------------------------------------------------- the parts that three ports have


def resampler_rows(peer: str, config: ResamplerConfig, theirs: str = "", ours: str = "resampler/") -> list[Row]:
    """The table of a resampler with the peer's conventions."""
    R, D, inner = config.latents, config.width, config.heads * config.key_size
    hidden = config.ffw_multiplier * D
    rows = [Row("latents", ("latents",), (R, D))]
    rows += _embeddings(peer, config)
    for i in range(config.layers):
        own, attn, ffw = f"layer_{i}/", f"layers.{i}.0.", f"layers.{i}.1."
        rows += norm_rows(attn + "norm_media", own + "media", D)
        rows += norm_rows(attn + "norm_latents", own + "attn", D)
        rows.append(Row(attn + "to_q.weight", (own + "w_q",), (inner, D), "linear"))
        if peer == "flamingo-mini":
            rows += [Row(f"{attn}to_{x}.weight", (f"{own}w_{x}",), (inner, D), "linear") for x in "kv"]
        else:
            rows.append(Row(attn + "to_kv.weight", (own + "w_k", own + "w_v"), (2 * inner, D), "linear"))
        rows.append(Row(attn + "to_out.weight", (own + "w_o",), (D, inner), "linear"))
        rows += feed_forward_rows(ffw, own, D, hidden)
    return prefixed(rows + norm_rows("norm", "out", D), theirs, ours)


def _embeddings(peer, config):
    """Learned embeddings of time and of place. Names and shapes differ in each port."""
    N, F, D = config.places, config.frames, config.width
    if peer == "flamingo-pytorch":
        return [Row("media_pos_emb", ("place",), (N, 1, D), "place")]
    if peer == "flamingo-mini":
        return [Row("time_pos_emb", ("temporal",), (F, 1, D), "place")]
    rows = [Row("frame_embs", ("temporal",), (F, D))] if F else []
    return rows + ([Row("media_time_embs", ("place",), (N, 1, D), "place")] if N else [])


def xattn_rows(peer: str, config: FlamingoConfig, theirs: str = "", ours: str = "xattn/") -> list[Row]:
    """The table of one gated block with the peer's conventions."""
    D, Dv, inner = config.language.width, config.resampler.width, config.xattn.heads * config.xattn.key_size
    mini = peer == "flamingo-mini"
    rows = norm_rows("attn.norm", "query", D)
    rows += [
        Row("attn.to_q.weight", ("w_q",), (inner, D), "linear"),
        Row("attn.to_kv.weight", ("w_k", "w_v"), (2 * inner, Dv), "linear"),
        Row("attn.to_out.weight", ("w_o",), (D, inner), "linear"),
        Row("alpha_attn" if mini else "attn_gate", ("alpha_xattn",), (1,), "scalar"),
    ]
    rows += feed_forward_rows("ffw." if mini else "ff.", "", D, config.xattn.ffw_multiplier * D)
    rows.append(Row("alpha_ffw" if mini else "ff_gate", ("alpha_dense",), (1,), "scalar"))
    return prefixed(rows, theirs, ours)


def norm_rows(theirs: str, ours: str, D: int) -> list[Row]:
    """Gain and bias of a layer norm."""
    return [Row(f"{theirs}.weight", (f"{ours}_gain",), (D,)), Row(f"{theirs}.bias", (f"{ours}_bias",), (D,))]


def feed_forward_rows(theirs: str, ours: str, D: int, hidden: int) -> list[Row]:
    """A torch Sequential: layer norm (0), Linear (1), activation (2), Linear (3)."""
    return [
        *norm_rows(f"{theirs}0", f"{ours}ffw", D),
        Row(f"{theirs}1.weight", (f"{ours}w_1",), (hidden, D), "linear"),
        Row(f"{theirs}3.weight", (f"{ours}w_2",), (D, hidden), "linear"),
    ]


def prefixed(rows: Iterable[Row], theirs: str, ours: str) -> list[Row]:
    """The same rows with a prefix before both names."""
    return [row._replace(theirs=theirs + row.theirs, ours=tuple(ours + path for path in row.ours)) for row in rows]
