"""The conventions of each public port as our configurations, and its sizes from its tensors (chapter §3 and §4).

The functions are in `variants/ports.py`. No tensor shows the size of a head: the default is 64 in all
three ports.

Not here: the names of the tensors (`names.py`) and the language models (`decoder_names.py`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, VisionConfig
from tinyflamingo.ops.types import Params
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.registry import in_form, part_to_dict

PORTS = ("flamingo-pytorch", "flamingo-mini", "open_flamingo")
HEAD_SIZE = 64
PLACES = 4  # flamingo-pytorch's default number of media in a document


def with_conventions(config: FlamingoConfig, peer: str) -> FlamingoConfig:
    """The same sizes with a port's conventions. A model that trains with it can be exported to the port."""
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


def check_conventions(config: FlamingoConfig, peer: str) -> None:
    """`UserError` that lists the fields of a configuration that the port cannot represent."""
    want = with_conventions(config, peer)
    differences = []
    for part in ("resampler", "xattn"):
        here, there = part_to_dict(part, getattr(config, part)), part_to_dict(part, getattr(want, part))
        differences += [
            f"{part}.{name} is {here.get(name)!r}, there {value!r}"
            for name, value in there.items()
            if here.get(name) != value and not (peer == "flamingo-mini" and name == "activation")  # it has an option
        ]
    if differences:
        raise UserError(
            f"{peer} has other conventions than this model: {'; '.join(differences)}; train with the configuration "
            f"interop.peers.with_conventions(config, {peer!r})"
        )


def resampler_config(peer: str, tensors: Params, head_size: int = HEAD_SIZE) -> PortResamplerConfig:
    """The sizes of a port's resampler from its {name: array}, without a prefix."""
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
    )


def xattn_config(peer: str, tensors: Params, head_size: int = HEAD_SIZE) -> FlamingoConfig:
    """A configuration whose gated blocks have the sizes of a port's block, from the {name: array} of one block."""
    inner, D = _shape(tensors, "attn.to_q.weight", 2)
    Dv = _shape(tensors, "attn.to_kv.weight", 2)[1]
    base = FlamingoConfig()
    xattn = PortXattnConfig(
        heads=heads(inner, head_size),
        key_size=head_size,
        ffw_multiplier=_multiplier(tensors, "ffw.1.weight" if peer == "flamingo-mini" else "ff.1.weight"),
        side="after" if peer == "flamingo-pytorch" else "before",
    )
    return dataclasses.replace(
        base,
        vision=VisionConfig(width=Dv),
        resampler=in_form(base.resampler, PortResamplerConfig, input_width=Dv, width=Dv),
        language=dataclasses.replace(base.language, width=D),
        xattn=xattn,
    )


def layers(names: Iterable[str], pattern: str) -> int:
    """1 + the largest number in the names that begin with a pattern."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def heads(inner: int, head_size: int) -> int:
    """The number of heads: inner width / head size."""
    if head_size < 1:
        raise UserError(f"the head size is {head_size} but must be at least 1")
    if inner % head_size:
        raise UserError(f"the inner width {inner} is not a multiple of the head size {head_size}: give another one")
    return inner // head_size


def _multiplier(tensors, name) -> int:
    hidden, D = _shape(tensors, name, 2)
    if hidden % D:
        raise UserError(f"{name} is {(hidden, D)}: the hidden width is not a multiple of the width")
    return hidden // D


def _shape(tensors, name, axes):
    shape = tensors[name].shape if name in tensors else None
    if shape is None or len(shape) != axes:
        raise UserError(f"{name}: expected a tensor with {axes} axes, its shape is {shape}; is it this port's file?")
    return shape
