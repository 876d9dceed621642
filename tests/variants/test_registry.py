"""The functions of a configuration: the chapter's are the defaults. Every form has a name in files."""

import dataclasses
import inspect
import json

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import VARIANTS, tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model import config as chapter
from tinyflamingo.model import flamingo as flamingo_module
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, XattnConfig
from tinyflamingo.model.flamingo import CHAPTER, Parts, embed_with_eoc, flamingo, own_medium, resample
from tinyflamingo.model.gated_xattn import gated_xattn_dense, init_gated_xattn
from tinyflamingo.model.language_model import decoder_block, final_norm, init_language_model
from tinyflamingo.model.perceiver_resampler import init_resampler
from tinyflamingo.model.vision_encoder import encode_pictures, init_vision_encoder
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.ablations import PlacedXattnConfig, VanillaXattnConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig
from tinyflamingo.variants.ports import PortXattnConfig
from tinyflamingo.variants.registry import (
    INIT,
    KINDS,
    OTHER,
    config_from_dict,
    config_to_dict,
    in_form,
    init_flamingo,
    init_part,
    part_from_dict,
    part_to_dict,
    parts_of,
    untrained,
)
from tinyflamingo.variants.vit import ViTConfig

FORMS = [(part, kind) for part, forms in KINDS.items() for kind in forms]
OWN = {
    chapter.VisionConfig,
    chapter.TextTowerConfig,
    chapter.ResamplerConfig,
    chapter.LanguageConfig,
    chapter.XattnConfig,
}
each_form = pytest.mark.parametrize("part, kind", FORMS, ids="-".join)
each_variant = pytest.mark.parametrize("name", VARIANTS)


# ---------------------------------------------------------------- every form is known


@each_form
def test_every_form_has_fresh_parameters_and_functions(part, kind):
    form = KINDS[part][kind]
    assert (form in INIT) == (part != "text_tower")  # `init_contrastive` makes the text tower
    assert (form in OTHER) == (form not in OWN | {PlacedXattnConfig})  # the chapter's functions at other places
    assert dataclasses.is_dataclass(form) and form.__dataclass_params__.frozen


def test_everything_registered_has_a_kind():
    forms = [form for forms in KINDS.values() for form in forms.values()]
    assert len(set(forms)) == len(forms)
    assert set(INIT) | {chapter.TextTowerConfig} == set(forms) and set(OTHER) < set(forms)
    assert [next(iter(forms.values())) for forms in KINDS.values()] == [
        chapter.VisionConfig,
        chapter.TextTowerConfig,
        chapter.ResamplerConfig,
        chapter.LanguageConfig,
        chapter.XattnConfig,
    ]
    assert list(KINDS) == [field.name for field in dataclasses.fields(FlamingoConfig)]


def test_the_tests_have_a_model_of_every_form():
    used = {type(getattr(config, part)) for config in VARIANTS.values() for part in KINDS}
    assert used == {form for forms in KINDS.values() for form in forms.values()}


@each_form
def test_every_form_extends_the_chapters(part, kind):
    """So its sizes have the chapter's names. Only CLIP's transformer has sizes of another kind."""
    base = next(iter(KINDS[part].values()))
    assert issubclass(KINDS[part][kind], base) or KINDS[part][kind] is ViTConfig


# ---------------------------------------------------------------- the chapter's functions


def test_the_chapters_functions_are_the_defaults():
    chapters = Parts(
        encode=encode_pictures,
        resample=resample,
        embed=embed_with_eoc,
        gated_block=gated_xattn_dense,
        decoder_block=decoder_block,
        final_norm=final_norm,
        visible=own_medium,
    )
    assert CHAPTER == Parts() == chapters
    assert inspect.signature(flamingo).parameters["parts"].default is CHAPTER


@pytest.mark.parametrize(
    "config",
    [FlamingoConfig(), tiny_config(), tiny_config(xattn={"form": PlacedXattnConfig, "start": 1, "every": 2})]
    + [get_preset(name).config for name in ("smoke", "toy")],
)
def test_a_configuration_of_the_chapter_has_the_chapters_functions(config):
    assert parts_of(config) == CHAPTER


def test_fresh_parameters_are_the_chapters(rng):
    config = tiny_config()
    actual = init_flamingo(np.random.default_rng(5), config)
    expected = flamingo_module.init_flamingo(np.random.default_rng(5), config)
    assert _leaves(actual) == _leaves(expected)
    for part, init in (
        (config.vision, init_vision_encoder),
        (config.resampler, init_resampler),
        (config.language, init_language_model),
    ):
        actual, expected = init_part(np.random.default_rng(5), part), init(np.random.default_rng(5), part)
        assert _leaves(actual) == _leaves(expected)
    model = untrained(rng, config, None)
    assert model.parts == CHAPTER and set(model.params) == {"resampler", "eoc", "xattn_0", "xattn_1", "xattn_2"}
    assert INIT[XattnConfig] is INIT[PlacedXattnConfig] is init_gated_xattn


def _leaves(tree):
    return {name: (leaf.dtype, leaf.shape, leaf.tobytes()) for name, leaf in named_leaves(tree).items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("xattn", [{}, {"every": 2}, {"form": PlacedXattnConfig, "start": 1, "every": 9}], ids=str)
def test_logits_are_those_of_a_loop_with_the_chapters_functions(floor, dtype, xattn):
    """To the last bit: `Parts` changes no number."""
    m = tiny(dtype=dtype, config=tiny_config(xattn=xattn))
    actual = flamingo(m.params, m.frozen, m.tokens, m.visible, m.visual, m.config, parts=parts_of(m.config))
    language, visible_from = m.frozen["language"], np.zeros(m.tokens.shape, int)
    h = embed_with_eoc(m.params["eoc"], language, m.tokens)
    for i in range(m.config.language.layers):
        if f"xattn_{i}" in m.params:
            h = gated_xattn_dense(m.params[f"xattn_{i}"], h, m.visual, m.phi, m.config.xattn)
        h = decoder_block(language[f"block_{i}"], h, visible_from, m.config.language)
    h = final_norm(language, h)
    words, eoc = ops.linear(h, language["embedding"].T), ops.linear(h, m.params["eoc"][:, None])
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, np.concatenate([words, eoc], axis=-1))


# ---------------------------------------------------------------- other forms


@each_variant
def test_the_functions_of_a_variant_take_the_chapters_arguments(name):
    parts = parts_of(VARIANTS[name])
    for field, function in parts._asdict().items():
        names = [list(inspect.signature(f).parameters) for f in (function, getattr(CHAPTER, field))]
        assert len(names[0]) == len(names[1]), field
    assert (parts == CHAPTER) == (name in ("chapter", "every second block", "placed"))


@each_variant
def test_tokens_without_a_loss_can_be_left_out_of_the_last_block(name, floor):
    """The logits and the gradients of the other tokens stay the same."""
    m, rows = tiny(config=VARIANTS[name]), np.array([1, 2, 6, 7, 11, 15])

    def loss(params, pick):
        arguments = (m.frozen, m.tokens, m.visible, m.visual, m.config)
        logits = pick(lambda **options: flamingo(params, *arguments, parts=m.parts, **options))
        return anp.sum(anp.sin(logits)), logits

    def all_rows(run):
        return run().reshape((16, m.eoc + 1))[rows]

    (_, expected), full = ops.value_and_grad(loss)(m.params, all_rows)
    (_, actual), few = ops.value_and_grad(loss)(m.params, lambda run: run(needed=rows))
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    for leaf, gradient in named_leaves(full).items():
        np.testing.assert_allclose(named_leaves(few)[leaf], gradient, atol=1e-12, err_msg=leaf)


@each_variant
def test_fresh_parameters_without_their_numbers(name):
    """`load_checkpoint` compares shapes with these. They equal the shapes of real parameters."""
    config = VARIANTS[name]
    hollow, real = (untrained(rng, config, None) for rng in (HollowGenerator(), np.random.default_rng(0)))
    for tree in ("params", "frozen"):
        shapes = [{n: a.shape for n, a in named_leaves(getattr(m, tree)).items()} for m in (hollow, real)]
        assert shapes[0] == shapes[1]


def test_sizes_in_another_form():
    config = ResamplerConfig(latents=3, layers=5)
    assert in_form(config, MLPConfig) == MLPConfig(latents=3, layers=5)
    placed = in_form(XattnConfig(every=3, heads=2), PlacedXattnConfig, start=1)
    assert placed == PlacedXattnConfig(every=3, heads=2, start=1)
    assert in_form(placed, VanillaXattnConfig) == VanillaXattnConfig(every=3, heads=2)  # it has no start
    assert in_form(placed, PlacedXattnConfig, every=4) == PlacedXattnConfig(every=4, heads=2, start=1)
    assert in_form(chapter.VisionConfig(width=64, side=16), ViTConfig, heads=2) == ViTConfig(width=64, side=16, heads=2)
    with pytest.raises(TypeError):
        in_form(config, MLPConfig, places=3)


# ---------------------------------------------------------------- dictionaries in files


@each_form
def test_every_kind_round_trips_through_json(part, kind):
    config = KINDS[part][kind]()
    raw = json.loads(json.dumps(part_to_dict(part, config)))  # JSON has lists where we have tuples
    assert raw["kind"] == kind and set(raw) == {"kind"} | {f.name for f in dataclasses.fields(config)}
    again = part_from_dict(part, raw)
    assert again == config and type(again) is type(config)


@pytest.mark.parametrize("config", [FlamingoConfig(), *VARIANTS.values()], ids=["full size", *VARIANTS])
def test_every_configuration_round_trips_through_json(config):
    raw = json.loads(json.dumps(config_to_dict(config)))
    again = config_from_dict(raw)
    assert again == config and [type(getattr(again, part)) for part in KINDS] == [
        type(getattr(config, part)) for part in KINDS
    ]
    assert set(raw) == {"vision", "text_tower", "resampler", "language", "xattn"}


def test_values_that_are_not_defaults_round_trip():
    config = tiny_config(
        xattn={"form": PortXattnConfig, "start": 1, "side": "after", "activation": "squared_relu"},
        vision={"form": ViTConfig, "pixels": ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), "norm_features": False, "heads": 2},
    )
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def _changed(change, config=None):
    raw = config_to_dict(config or tiny_config())
    change(raw)
    return raw


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda raw: raw["language"].update(colour=3), r"'language' has unknown or missing fields \['colour'\]"),
        (lambda raw: raw["xattn"].update(attend="all"), r"'xattn' has unknown or missing fields \['attend'\]"),
        (lambda raw: raw["vision"].update(pool="mean"), r"'vision' has unknown or missing fields \['pool'\]"),
        (lambda raw: raw["xattn"].pop("every"), r"'xattn' has unknown or missing fields \['every'\]"),
        (lambda raw: raw["xattn"].pop("kind"), "'xattn' is of kind None but must be one of gated, placed, ungated"),
        (lambda raw: raw["xattn"].update(kind="graft"), "'xattn' is of kind 'graft' but must be one of gated, pl"),
        (lambda raw: raw["xattn"].update(kind="placed"), r"'xattn' has unknown or missing fields \['start'\]"),
        (lambda raw: raw["resampler"].update(kind="qformer"), "'resampler' is of kind 'qformer' but must be one of p"),
        (lambda raw: raw["resampler"].update(kind="gated"), "'resampler' is of kind 'gated' but must be one of perc"),
        (lambda raw: raw["language"].update(kind=None), "'language' is of kind None but must be one of chinchilla, p"),
        (lambda raw: raw["language"].update(kind=[1]), r"'language' is of kind \[1\] but must be one of chinchilla"),
        (lambda raw: raw["language"].update(kind={}), r"'language' is of kind \{\} but must be one of chinchilla"),
        (lambda raw: raw["vision"].update(kind="ViT"), "'vision' is of kind 'ViT' but must be one of nf_resnet, vit"),
        (lambda raw: raw.update(xattn=None), "'xattn' is of kind None but must be one of"),
        (lambda raw: raw.update(xattn=[1, 2]), "'xattn' is of kind None but must be one of"),
        (lambda raw: raw.update(xattn="gated"), "'xattn' is of kind None but must be one of"),
        (lambda raw: raw.update(audio={}), "expected the parts .*found .*audio"),
        (lambda raw: raw.pop("vision"), "expected the parts"),
        (lambda raw: raw["vision"].update(width=16), "resampler.input_width 8 differs from vision.width 16"),
        (lambda raw: raw["language"].update(layers="3"), "layers is '3'"),
    ],
)
def test_unknown_kinds_and_fields_are_one_clear_line(change, match):
    with pytest.raises(UserError, match=match) as caught:
        config_from_dict(_changed(change))
    assert str(caught.value).startswith("configuration: ") and "\n" not in str(caught.value)


@each_form
def test_a_foreign_field_of_any_kind_is_named(part, kind):
    raw = part_to_dict(part, KINDS[part][kind]())
    with pytest.raises(UserError, match=rf"part '{part}' has unknown or missing fields \['colour'\]"):
        part_from_dict(part, raw | {"colour": 3})
    for name in set(raw) - {"kind"}:
        with pytest.raises(UserError, match=rf"part '{part}' has unknown or missing fields \['{name}'\]"):
            part_from_dict(part, {key: value for key, value in raw.items() if key != name})


@pytest.mark.parametrize("raw", [[], {}, ["vision"], 3, None, "vision"])
def test_no_dictionary_of_parts(raw):
    with pytest.raises(UserError, match="expected the parts"):
        config_from_dict(raw)
