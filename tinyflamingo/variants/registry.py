"""The functions of each configuration, and its name in a file.

The type of each part's configuration chooses its functions, once, when a model is made or loaded. Then `Parts` passes
them to the loop of `model/flamingo.py`. The parts of the chapter have no entry in `OTHER`: they are the defaults of
`Parts`.

Not here: the functions themselves, and the file (`checkpoint.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.model import config as chapter
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.contrastive import init_contrastive
from tinyflamingo.model.flamingo import CHAPTER, Parts, TrainedFlamingo
from tinyflamingo.model.flamingo import init_flamingo as init_chapter
from tinyflamingo.model.gated_xattn import init_gated_xattn
from tinyflamingo.model.language_model import decoder_block, init_language_model
from tinyflamingo.model.perceiver_resampler import init_resampler
from tinyflamingo.model.vision_encoder import init_vision_encoder
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.types import Params
from tinyflamingo.variants import ablations, decoders, nf_resnets, plain_resamplers, ports, projected, vit

KINDS: dict[str, dict[str, type]] = {  # part -> name of a form in a file -> its configuration; the chapter's first
    "vision": {"nf_resnet": chapter.VisionConfig, "vit": vit.ViTConfig, "timm": nf_resnets.TimmConfig},
    "text_tower": {"bert": chapter.TextTowerConfig},
    "resampler": {
        "perceiver": chapter.ResamplerConfig,
        "mlp": plain_resamplers.MLPConfig,
        "transformer": plain_resamplers.TransformerConfig,
        "port": ports.PortResamplerConfig,
        "projected": projected.ProjectedResamplerConfig,
    },
    "language": {"chinchilla": chapter.LanguageConfig, "public": decoders.PublicDecoderConfig},
    "xattn": {
        "gated": chapter.XattnConfig,
        "placed": ablations.PlacedXattnConfig,
        "ungated": ablations.UngatedXattnConfig,
        "vanilla": ablations.VanillaXattnConfig,
        "all_previous": ablations.AllPreviousXattnConfig,
        "port": ports.PortXattnConfig,
    },
}


def _public_decoder(config):
    return {
        "embed": decoders.embed_plainly(config),
        "decoder_block": decoders.decoder_block,
        "final_norm": decoders.final_norm,
    }


def _port_block(config):
    block = ports.port_xattn_dense
    return {"gated_block": ablations.pending(block) if config.side == "after" else block}


OTHER: dict[type, Callable] = {  # configuration -> function of it -> the fields of `Parts` that it changes
    vit.ViTConfig: lambda _: {"encode": vit.encode_with_vit},
    nf_resnets.TimmConfig: lambda _: {"encode": nf_resnets.encode_as_timm},
    plain_resamplers.MLPConfig: lambda _: {"resample": plain_resamplers.resample_with_mlp},
    plain_resamplers.TransformerConfig: lambda _: {"resample": plain_resamplers.resample_with_transformer},
    ports.PortResamplerConfig: lambda _: {"resample": ports.resample_as_ports},
    projected.ProjectedResamplerConfig: lambda _: {"resample": projected.resample_and_project},
    decoders.PublicDecoderConfig: _public_decoder,
    ablations.UngatedXattnConfig: lambda _: {"gated_block": ablations.ungated_xattn_dense},
    ablations.VanillaXattnConfig: lambda _: {
        "gated_block": ablations.pending(ablations.vanilla_xattn),
        "decoder_block": ablations.vanilla_decoder_block,
    },
    ablations.AllPreviousXattnConfig: lambda _: {
        "gated_block": ablations.all_previous_xattn_dense,
        "visible": ablations.all_previous_media,
    },
    ports.PortXattnConfig: _port_block,
}


def parts_of(config: FlamingoConfig) -> Parts:
    """The functions of a configuration. `UserError` for two forms that do not work together."""
    functions: dict = {}
    for part in (config.vision, config.resampler, config.language, config.xattn):
        functions |= OTHER[type(part)](part) if type(part) in OTHER else {}
    block = functions.get("decoder_block", decoder_block)
    if isinstance(config.xattn, ablations.VanillaXattnConfig) and type(config.language) in OTHER:
        raise UserError("configuration: vanilla cross-attention works in our own decoder block, not in a public one")
    if getattr(config.xattn, "side", "before") == "after":
        functions["decoder_block"] = ablations.then_pending(block)
    return CHAPTER._replace(**functions)


def in_form(config: Any, form: Any, **fields: Any) -> Any:
    """A configuration of the class `form` with the sizes of `config`. fields: values of other fields."""
    sizes = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    known = {f.name for f in dataclasses.fields(form)}
    return form(**{name: size for name, size in sizes.items() if name in known} | fields)


# ---- fresh parameters

Generator: TypeAlias = np.random.Generator | HollowGenerator  # hollow: shapes without numbers

INIT: dict[type, Callable] = {  # configuration -> function (rng, configuration, dtype) that makes parameters
    chapter.VisionConfig: init_vision_encoder,
    vit.ViTConfig: vit.init_vit,
    nf_resnets.TimmConfig: nf_resnets.init_timm_encoder,
    chapter.ResamplerConfig: init_resampler,
    plain_resamplers.MLPConfig: plain_resamplers.init_mlp,
    plain_resamplers.TransformerConfig: plain_resamplers.init_transformer,
    ports.PortResamplerConfig: ports.init_port_resampler,
    projected.ProjectedResamplerConfig: init_resampler,
    chapter.LanguageConfig: init_language_model,
    decoders.PublicDecoderConfig: decoders.init_decoder,
    chapter.XattnConfig: init_gated_xattn,
    ablations.PlacedXattnConfig: init_gated_xattn,
    ablations.UngatedXattnConfig: ablations.init_ungated_xattn,
    ablations.VanillaXattnConfig: ablations.init_vanilla_xattn,
    ablations.AllPreviousXattnConfig: init_gated_xattn,
    ports.PortXattnConfig: ports.init_port_xattn,
}


def init_part(rng: Generator, config: Any, dtype: type = np.float32) -> Params:
    """Fresh parameters of a vision encoder, a resampler or a decoder, by the type of the configuration."""
    return INIT[type(config)](rng, config, dtype)


def init_flamingo(rng: Generator, config: FlamingoConfig, dtype: type = np.float32) -> Params:
    """Fresh parameters of everything that trains, as in `model.flamingo.init_flamingo`."""
    params = init_chapter(rng, config, dtype, INIT[type(config.resampler)], INIT[type(config.xattn)])
    if isinstance(config.resampler, projected.ProjectedResamplerConfig):
        params |= projected.init_projection(rng, config.resampler, dtype)
    return params


def untrained(rng: Generator, config: FlamingoConfig, tokenizer: Any) -> TrainedFlamingo:
    """A Flamingo of this configuration with fresh weights (gates at 0)."""
    vision = init_part(rng, config.vision)
    contrastive = init_contrastive(rng, config, vision)
    frozen = {
        "vision": vision,
        "feature_mean": np.zeros(config.vision.width, np.float32),
        "feature_scale": np.ones(config.vision.width, np.float32),
        "contrastive": {k: v for k, v in contrastive.items() if k != "vision"},
        "language": init_part(rng, config.language),
    }
    return TrainedFlamingo(config, init_flamingo(rng, config), frozen, tokenizer, parts=parts_of(config))


# ---- a dictionary for a file


def config_to_dict(config: FlamingoConfig) -> dict:
    """A plain dictionary for JSON: the fields of every part, and its kind."""
    return {part: part_to_dict(part, getattr(config, part)) for part in KINDS}


def part_to_dict(part: str, config: Any) -> dict:
    """The fields of the configuration of one part, and its kind."""
    kind = next(name for name, form in KINDS[part].items() if form is type(config))
    return {"kind": kind, **dataclasses.asdict(config)}


def config_from_dict(raw: dict) -> FlamingoConfig:
    """The inverse of `config_to_dict`. Unknown or missing keys raise `UserError`."""
    if not isinstance(raw, dict) or set(raw) != set(KINDS):
        given = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise UserError(f"configuration: expected the parts {sorted(KINDS)}, found {given}")
    return FlamingoConfig(**{part: part_from_dict(part, raw[part]) for part in KINDS})


def part_from_dict(part: str, raw: dict) -> Any:
    """The inverse of `part_to_dict`."""
    if not isinstance(raw, dict) or raw.get("kind") not in tuple(KINDS[part]):
        kind = raw.get("kind") if isinstance(raw, dict) else None
        raise UserError(f"configuration: part {part!r} is of kind {kind!r} but must be one of {', '.join(KINDS[part])}")
    form = KINDS[part][raw["kind"]]
    known = {f.name for f in dataclasses.fields(form)} | {"kind"}
    if wrong := sorted(set(raw) ^ known):
        raise UserError(f"configuration: part {part!r} has unknown or missing fields {wrong}")
    return form(**{key: _tuples(value) for key, value in raw.items() if key != "kind"})


def _tuples(value):
    """Lists, from JSON, to tuples, for the dataclasses."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
