"""The conventions of each public port, as fields of our configuration, and its sizes from its tensors.

`flamingo-pytorch` (0.1.2), `flamingo-mini` (0.0.2) and `open_flamingo` (2.0.1) agree on GELU, on a
norm of the features and after the resampler, and on none on the media in a gated block; they differ
in where the gated blocks stand and in what they embed beside the features. Only the size of a head
is in no tensor: 64 by default, in all three.

Not here: the names of the tensors (`names.py`) and the language models (`decoder_names.py`).
"""

from __future__ import annotations

import dataclasses
import re

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, VisionConfig, XattnConfig

PORTS = ("flamingo-pytorch", "flamingo-mini", "open_flamingo")
HEAD_SIZE = 64
RESAMPLER = {"activation": "gelu_erf", "media_norm": True, "output_norm": True}
XATTN = {"activation": "gelu_erf", "media_norm": False}
PLACES = 4  # flamingo-pytorch's own default: media in a document


def with_conventions(config: FlamingoConfig, peer: str) -> FlamingoConfig:
    """The same sizes with a port's conventions: what trains so can be exported to it."""
    resampler, xattn = dict(RESAMPLER), dict(XATTN)
    if peer == "flamingo-pytorch":
        resampler |= {"frames": 0, "places": config.resampler.places or PLACES}
        xattn |= {"side": "after"}
    if peer == "flamingo-mini":
        resampler |= {"places": 0}
    if peer == "open_flamingo":
        xattn |= {"start": config.xattn.every - 1}
    return dataclasses.replace(
        config,
        resampler=dataclasses.replace(config.resampler, **resampler),
        xattn=dataclasses.replace(config.xattn, **xattn),
    )


def check_conventions(config: FlamingoConfig, peer: str):
    """`UserError` naming every field in which a configuration differs from what a port can hold."""
    want = with_conventions(config, peer)
    odd = [
        f"{part}.{field.name} is {have!r}, there {must!r}"
        for part in ("resampler", "xattn")
        for field in dataclasses.fields(getattr(config, part))
        if (have := getattr(getattr(config, part), field.name)) != (must := getattr(getattr(want, part), field.name))
        and not (peer == "flamingo-mini" and field.name == "activation")  # an option there
    ]
    if odd:
        raise UserError(
            f"{peer} has other conventions than this model: {'; '.join(odd)}; train with those of "
            f"interop.peers.with_conventions(config, {peer!r})"
        )


def resampler_config(peer, tensors, head_size=HEAD_SIZE, activation="gelu_erf") -> ResamplerConfig:
    """The sizes of a port's resampler from its {name: array}, without prefix."""
    (R, D), inner = _shape(tensors, "latents", 2), _shape(tensors, "layers.0.0.to_q.weight", 2)[0]
    time = {"flamingo-mini": "time_pos_emb", "open_flamingo": "frame_embs"}.get(peer)
    place = {"flamingo-pytorch": "media_pos_emb", "open_flamingo": "media_time_embs"}.get(peer)
    return ResamplerConfig(
        input_width=D,
        width=D,
        layers=layers(tensors, r"layers\.(\d+)\."),
        heads=heads(inner, head_size),
        key_size=head_size,
        latents=R,
        frames=len(tensors[time]) if time in tensors else 0,
        places=len(tensors[place]) if place in tensors else 0,
        ffw_multiplier=_multiplier(tensors, "layers.0.1.1.weight"),
        **RESAMPLER | {"activation": activation},
    )


def xattn_config(peer, tensors, latents=64, head_size=HEAD_SIZE, activation="gelu_erf") -> FlamingoConfig:
    """A configuration whose gated blocks have the sizes of one port's block, from its {name: array}.

    latents: how many visual tokens a medium has, which no tensor of the block tells.
    """
    inner, D = _shape(tensors, "attn.to_q.weight", 2)
    Dv = _shape(tensors, "attn.to_kv.weight", 2)[1]
    base = FlamingoConfig()
    xattn = XattnConfig(
        heads=heads(inner, head_size),
        key_size=head_size,
        ffw_multiplier=_multiplier(tensors, "ffw.1.weight" if peer == "flamingo-mini" else "ff.1.weight"),
        **XATTN | {"activation": activation, "side": "after" if peer == "flamingo-pytorch" else "before"},
    )
    return dataclasses.replace(
        base,
        vision=VisionConfig(width=Dv),
        resampler=dataclasses.replace(base.resampler, input_width=Dv, width=Dv, latents=latents),
        language=dataclasses.replace(base.language, width=D),
        xattn=xattn,
    )


def layers(tensors, pattern) -> int:
    """1 + the largest number in the names that begin with a pattern."""
    return 1 + max((int(match[1]) for name in tensors if (match := re.match(pattern, name))), default=-1)


def heads(inner, head_size) -> int:
    """How many heads of a size make an inner width."""
    if head_size < 1:
        raise UserError(f"the head size is {head_size} but must be at least 1")
    if inner % head_size:
        raise UserError(f"an inner width of {inner} is no multiple of the head size {head_size}: give another one")
    return inner // head_size


def _multiplier(tensors, name) -> int:
    hidden, D = _shape(tensors, name, 2)
    if hidden % D:
        raise UserError(f"{name} is {(hidden, D)}: the hidden width is no multiple of the width")
    return hidden // D


def _shape(tensors, name, axes):
    if name not in tensors or len(tensors[name].shape) != axes:
        found = tensors[name].shape if name in tensors else "none"
        raise UserError(f"{name}: expected a tensor of {axes} axes, found {found}; is it this port's file?")
    return tensors[name].shape
