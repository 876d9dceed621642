"""Names of the public ports, tensor by tensor, and the two ways through such a table.

A table is a list of `Row`s: the peer's name and shape, our paths, and how one becomes the other.
Our matrices are (in, out), those of a torch Linear (out, in); what a peer stacks into one tensor
(keys on values) is several of ours. Read forward a table imports, read backward it exports.

Here: the parts that `flamingo-pytorch`, `open_flamingo` and `flamingo-mini` share, resampler and
gated block. Not here: decoders (`decoder_names.py`), whole checkpoints (`open_flamingo.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import from_named_leaves, named_leaves

TOLD = 6  # names listed of each kind of mistake


class Row(NamedTuple):
    """One tensor of a peer."""

    theirs: str
    ours: tuple  # our paths; more than one where the peer stacks them
    shape: tuple  # the peer's
    form: str = "same"  # a name in `FORMS`


FORMS = {  # the peer's array to ours, and ours to the peer's, which wants the peer's shape
    "same": (lambda a: a, lambda a, shape: a),
    "linear": (lambda a: a.T, lambda a, shape: a.T),
    "scalar": (lambda a: a.reshape(()), lambda a, shape: a.reshape(shape)),  # () for (1,)
    "place": (lambda a: a[:, 0], lambda a, shape: a.reshape(shape)),  # (N, D) for (N, 1, D)
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a, shape: a.transpose(3, 2, 0, 1)),  # (y, x, c, D)
    "channel": (lambda a: a[:, 0, 0, 0], lambda a, shape: a.reshape(shape)),  # (D,) for (D, 1, 1, 1)
    "pixel": (lambda a: a[:, :, 0, 0].T, lambda a, shape: a.T.reshape(shape)),  # a Linear written as a convolution
    "patch": (  # (y x c, D) for the (D, c, y, x) of a convolution
        lambda a: np.transpose(a, (2, 3, 1, 0)).reshape(-1, a.shape[0]),
        lambda a, shape: np.transpose(a.reshape(*shape[2:], shape[1], shape[0]), (3, 2, 0, 1)),
    ),
}


def take(row: Row, array) -> dict:
    """{our path: array} of a peer's tensor: views of it wherever there can be one."""
    parts = np.split(array, len(row.ours), axis=_stacking(row)) if len(row.ours) > 1 else [array]
    return {path: FORMS[row.form][0](part) for path, part in zip(row.ours, parts, strict=True)}


def give(row: Row, flat):
    """The peer's tensor of our arrays {path: array}: the inverse of `take`."""
    parts = [FORMS[row.form][1](flat[path], row.shape) for path in row.ours]
    return np.concatenate(parts, axis=_stacking(row)) if len(parts) > 1 else parts[0]


def _stacking(row):
    return 0 if row.form == "linear" else -1


def our_shapes(rows) -> dict:
    """{our path: shape} that a table makes, without any array."""
    return {
        path: part.shape for row in rows for path, part in take(row, np.broadcast_to(np.float32(0), row.shape)).items()
    }


def import_arrays(rows, tensors, where) -> dict:
    """Our nested dict of a peer's {name: array}. Anything unknown, missing or of another shape is a `UserError`."""
    check({row.theirs: row.shape for row in rows}, {n: a.shape for n, a in tensors.items()}, where)
    flat: dict = {}
    for row in rows:
        flat |= take(row, tensors[row.theirs])
    return from_named_leaves(flat)


def export_arrays(rows, tree, where) -> dict:
    """A peer's {name: array} of our nested dict; the same strictness, with our names."""
    flat = named_leaves(tree)
    check(our_shapes(rows), {n: np.shape(a) for n, a in flat.items()}, where)
    return {row.theirs: give(row, flat) for row in rows}


def check(want, have, where):
    """`UserError` naming what is missing, what is unknown, and what differs in shape, with both shapes."""
    missing = [f"{n} {want[n]}" for n in want if n not in have]
    unknown = [f"{n} {have[n]}" for n in have if n not in want]
    shapes = [f"{n} is {have[n]}, expected {want[n]}" for n in want if n in have and tuple(have[n]) != tuple(want[n])]
    told = [
        f"{len(names)} {kind}: {', '.join(names[:TOLD])}{' ...' if len(names) > TOLD else ''}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if told:
        raise UserError(f"{where}: the tensors do not fit; {'; '.join(told)}")


# ---------------------------------------------------------------- the parts that three ports share


def resampler_rows(peer, config, theirs="", ours="resampler/") -> list:
    """The table of a resampler. config: a `ResamplerConfig` with the peer's conventions."""
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
    """Learned embeddings of time and of place: every port has another pair of names and shapes."""
    N, F, D = config.places, config.frames, config.width
    if peer == "flamingo-pytorch":
        return [Row("media_pos_emb", ("place",), (N, 1, D), "place")]
    if peer == "flamingo-mini":
        return [Row("time_pos_emb", ("temporal",), (F, 1, D), "place")]
    rows = [Row("frame_embs", ("temporal",), (F, D))] if F else []
    return rows + ([Row("media_time_embs", ("place",), (N, 1, D), "place")] if N else [])


def xattn_rows(peer, config, theirs="", ours="xattn/") -> list:
    """The table of one gated block. config: a `FlamingoConfig` with the peer's conventions."""
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


def norm_rows(theirs, ours, D) -> list:
    """Gain and bias of a layer norm."""
    return [Row(f"{theirs}.weight", (f"{ours}_gain",), (D,)), Row(f"{theirs}.bias", (f"{ours}_bias",), (D,))]


def feed_forward_rows(theirs, ours, D, hidden) -> list:
    """A torch Sequential of layer norm (0), Linear (1), activation (2) and Linear (3)."""
    return [
        *norm_rows(f"{theirs}0", f"{ours}ffw", D),
        Row(f"{theirs}1.weight", (f"{ours}w_1",), (hidden, D), "linear"),
        Row(f"{theirs}3.weight", (f"{ours}w_2",), (D, hidden), "linear"),
    ]


def prefixed(rows, theirs, ours) -> list:
    """The same rows further down in both trees of names."""
    return [row._replace(theirs=theirs + row.theirs, ours=tuple(ours + path for path in row.ours)) for row in rows]
