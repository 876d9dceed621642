"""A small OpenFlamingo, built by its own code, compared with ours with the same weights.

The image tower comes from `open_clip`, the decoder from `transformers`; OpenFlamingo's program adds resampler and
gated blocks. The `state_dict` of the whole is read as `convert` reads it. Not here: the comparison of single
parts (`parity_parts.py`).
"""

from __future__ import annotations

import importlib
import json

import numpy as np
import parity_parts as parity

from tinyflamingo.interop import decoder_names, open_flamingo
from tinyflamingo.interop.vit_names import MEAN, SPREAD
from tinyflamingo.model.flamingo import encode_media, flamingo
from tinyflamingo.model.interleave import phi
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import from_named_leaves
from tinyflamingo.variants.byte_bpe import LETTERS
from tinyflamingo.variants.registry import parts_of

LAYERS = {"mpt": "transformer.blocks", "opt": "model.decoder.layers"}
ROWS = 256 + 1 + 3  # bytes, the end token, and OpenFlamingo's three tokens


def tiny_tokenizer() -> bytes:
    """A `tokenizer.json` of bytes only, without merges."""
    vocab = {letter: i for i, letter in enumerate([*LETTERS, "</s>"])}
    return json.dumps(
        {
            "added_tokens": [{"id": 256, "content": "</s>", "special": True}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    ).encode()


def build(kind, dtype, every=2):
    """A small OpenFlamingo with random weights (a torch module) and the configuration of its decoder."""
    torch, transformers, clip, theirs = map(
        importlib.import_module, ("torch", "transformers", "open_clip.transformer", "open_flamingo.src")
    )
    flamingo_lm, utils, whole = (
        importlib.import_module(f"{theirs.__name__}.{name}") for name in ("flamingo_lm", "utils", "flamingo")
    )
    tower = clip.VisionTransformer(
        image_size=28, patch_size=14, width=64, layers=2, heads=1, mlp_ratio=4, output_dim=16, output_tokens=True,
        act_layer=importlib.import_module("open_clip.transformer").QuickGELU,
    )  # fmt: skip
    sizes = parity.TINY[kind] | {"vocab_size": ROWS} | ({"n_layers": 4} if kind == "mpt" else {"num_hidden_layers": 4})
    raw = getattr(transformers, parity.CLASSES[kind].replace("ForCausalLM", "Config"))(**sizes)
    decoder = getattr(transformers, parity.CLASSES[kind])(raw)
    utils.extend_instance(decoder, flamingo_lm.FlamingoLMMixin)
    decoder.set_decoder_layers_attr_name(LAYERS[kind])
    holder = torch.nn.Module()
    holder.visual = tower
    model = whole.Flamingo(holder, decoder, ROWS - 3, ROWS - 2, vis_dim=64, cross_attn_every_n_layers=every)
    language = decoder_names.hugging_face_config(raw.to_dict())
    model = parity.randomise(model.to(torch.float64 if dtype == np.float64 else torch.float32), torch)
    for name, parameter in model.named_parameters():  # a mean of 0.1 in a wide layer would hide all differences
        if parameter.ndim > 1:
            parameter.data = (parameter.data - 0.1) * (0.5 if "perceiver" in name else 1.0)
    return model, language


def whole(kind, dtype) -> float:
    """Largest difference of the logits of one prompt with two pictures, and text before the first."""
    torch = importlib.import_module("torch")
    theirs, language = build(kind, dtype)
    ours = open_flamingo.import_checkpoint([parity.arrays_of(theirs)], language, tiny_tokenizer(), norm_features=True)
    tree = from_named_leaves({name: ours.arrays.get(name) for name in ours.arrays.shapes})
    order = np.array(ours.tokenizer.vocabulary.order())
    tokens = np.array([[70, 80, IMAGE, 90, 100, ours.tokenizer.eoc, IMAGE, 200, 201]])
    media = np.random.default_rng(5).integers(0, 256, (2, 1, 28, 28, 3), dtype=np.uint8)
    parts = parts_of(ours.config)
    features = encode_media(tree["frozen"], media, ours.config, parts).astype(dtype)
    visual = parts.resample(tree["params"], [features], ours.config)
    got = flamingo(tree["params"], tree["frozen"], tokens, phi(tokens), visual, ours.config, parts=parts)
    pixels = ((media / 255 - MEAN) / SPREAD).astype(dtype).transpose(0, 1, 4, 2, 3)[None]
    with torch.no_grad():
        want = theirs(torch.from_numpy(pixels), torch.from_numpy(order[tokens]), torch.ones(1, 9).long()).logits.numpy()
    return parity.difference(got, want[..., order])
