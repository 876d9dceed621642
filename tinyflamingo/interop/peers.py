"""The conventions of each public port, as our configurations, and its sizes from its tensors.

The functions are in `variants/ports.py`. Only the size of a head is in no tensor: 64 by default, in
all three ports.

Not here: the names of the tensors (`names.py`) and the language models (`decoder_names.py`).
"""

from __future__ import annotations

import dataclasses
import re

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, VisionConfig
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.registry import in_form, part_to_dict

PORTS = ("flamingo-pytorch", "flamingo-mini", "open_flamingo")
HEAD_SIZE = 64
PLACES = 4  # flamingo-pytorch's own default: media in a document


def with_conventions(config: FlamingoConfig, peer: str) -> FlamingoConfig:
    """The same sizes with a port's conventions: what trains so can be exported to it."""
    places = getattr(config.resampler, "places", 0)
    resampler: dict = {"activation": "gelu_erf", "places": places}
    xattn: dict = {"activation": "gelu_erf", "side": "before", "start": 0}
    if peer == "flamingo-pytorch":
        resampler |= {"frames": 0, "places": places or PLACES}
        xattn |= {"side": "after"}
    if peer == "flamingo-mini":
        resampler |= {"places": 0}
    if peer == "open_flamingo":
        xattn |= {"start": config.xattn.every - 1}
    return dataclasses.replace(
        config,
        resampler=in_form(config.resampler, PortResamplerConfig, **resampler),
        xattn=in_form(config.xattn, PortXattnConfig, **xattn),
    )


def check_conventions(config: FlamingoConfig, peer: str):
    """`UserError` naming every field in which a configuration differs from what a port can hold."""
    want = with_conventions(config, peer)
    differences = []
    for part in ("resampler", "xattn"):
        here, there = part_to_dict(part, getattr(config, part)), part_to_dict(part, getattr(want, part))
        differences += [
            f"{part}.{name} is {here.get(name)!r}, there {value!r}"
            for name, value in there.items()
            if here.get(name) != value and not (peer == "flamingo-mini" and name == "activation")  # an option there
        ]
    if differences:
        raise UserError(
            f"{peer} has other conventions than this model: {'; '.join(differences)}; train with those of "
            f"interop.peers.with_conventions(config, {peer!r})"
        )


def resampler_config(peer, tensors, head_size=HEAD_SIZE, activation="gelu_erf") -> PortResamplerConfig:
    """The sizes of a port's resampler from its {name: array}, without prefix."""
    (R, D), inner = _shape(tensors, "latents", 2), _shape(tensors, "layers.0.0.to_q.weight", 2)[0]
    time = {"flamingo-mini": "time_pos_emb", "open_flamingo": "frame_embs"}.get(peer)
    place = {"flamingo-pytorch": "media_pos_emb", "open_flamingo": "media_time_embs"}.get(peer)
    return PortResamplerConfig(
        input_width=D,
        width=D,
        layers=layers(tensors, r"layers\.(\d+)\."),
        heads=heads(inner, head_size),
        key_size=head_size,
        latents=R,
        frames=len(tensors[time]) if time in tensors else 0,
        places=len(tensors[place]) if place in tensors else 0,
        ffw_multiplier=_multiplier(tensors, "layers.0.1.1.weight"),
        activation=activation,
    )


def xattn_config(peer, tensors, latents=64, head_size=HEAD_SIZE, activation="gelu_erf") -> FlamingoConfig:
    """A configuration whose gated blocks have the sizes of one port's block, from its {name: array}.

    latents: how many visual tokens a medium has, which no tensor of the block tells.
    """
    inner, D = _shape(tensors, "attn.to_q.weight", 2)
    Dv = _shape(tensors, "attn.to_kv.weight", 2)[1]
    base = FlamingoConfig()
    xattn = PortXattnConfig(
        heads=heads(inner, head_size),
        key_size=head_size,
        ffw_multiplier=_multiplier(tensors, "ffw.1.weight" if peer == "flamingo-mini" else "ff.1.weight"),
        activation=activation,
        side="after" if peer == "flamingo-pytorch" else "before",
    )
    return dataclasses.replace(
        base,
        vision=VisionConfig(width=Dv),
        resampler=in_form(base.resampler, PortResamplerConfig, input_width=Dv, width=Dv, latents=latents),
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
