"""Visual tokens projected to the language model's width, once for all gated blocks, as in the paper's models."""

import numpy as np
from model_cases import check_tree, tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.perceiver_resampler import perceiver_resampler
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.paper import PAPER
from tinyflamingo.variants.projected import ProjectedResamplerConfig

CONFIG = tiny_config(resampler={"form": ProjectedResamplerConfig, "projected_width": 12})


def test_visual_tokens_projected_to_the_language_models_width(floor, rng):
    """One matrix. Then the keys and values of all gated blocks read width D."""
    m = tiny(config=CONFIG)
    assert m.params["w_visual"].shape == (8, 12)
    assert m.visual.shape[-1] == m.config.resampler.output_width == m.config.language.width == 12
    assert m.params["xattn_0"]["w_k"].shape == (12, 10)
    resampled = perceiver_resampler(m.params["resampler"], m.features, m.config.resampler)
    np.testing.assert_allclose(m.visual, resampled @ m.params["w_visual"], rtol=1e-10)
    assert m.parts.resample(m.params, [m.features[:0]], m.config).shape == (0, 3, 12)
    assert tiny_config().resampler.output_width == 8 and "w_visual" not in tiny().params


def test_the_matrix_trains(floor):
    m = tiny(config=CONFIG)
    weights = np.linspace(-1, 1, 2 * 8 * 13).reshape(2, 8, 13)

    def score(matrix):
        visual = m.parts.resample(m.params | matrix, [m.features], m.config)
        return (flamingo(m.params, m.frozen, m.tokens, m.phi, visual, m.config, parts=m.parts) * weights).sum()

    check_tree(score, {"w_visual": m.params["w_visual"]}, tol=1e-5)
    _, gradients = ops.value_and_grad(score)({"w_visual": m.params["w_visual"]})
    assert np.all(named_leaves(gradients)["w_visual"] != 0)


def test_the_papers_models_project():
    for name in ("flamingo-3b", "flamingo-9b", "flamingo-80b"):
        config = PAPER[name].config
        assert config.resampler.output_width == config.language.width
