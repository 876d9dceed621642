"""A small OpenFlamingo, built by its own code, compared with ours with the same weights.

The image tower comes from `open_clip`, the decoder from `transformers`; OpenFlamingo's program adds resampler and
gated blocks. `convert` reads its weights from a file. Both programs get the same pictures, which are not square, and
prepare them. Not here: the comparison of single parts (`parity_parts.py`).
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path

import numpy as np
import parity_parts as parity
from PIL import Image

from tinyflamingo.checkpoint import load_checkpoint
from tinyflamingo.data.images import prepare_picture
from tinyflamingo.interop.convert import Options, convert_from
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.interleave import phi
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.variants.byte_bpe import LETTERS

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
    """A small OpenFlamingo with random weights (a torch module) and the configuration of its decoder, as a JSON.

    final_ln_after_pool: `open_clip` of the time when OpenFlamingo was trained gave features before the final norm.
    """
    torch, transformers, clip, theirs = map(
        importlib.import_module, ("torch", "transformers", "open_clip.transformer", "open_flamingo.src")
    )
    flamingo_lm, utils, whole = (
        importlib.import_module(f"{theirs.__name__}.{name}") for name in ("flamingo_lm", "utils", "flamingo")
    )
    tower = clip.VisionTransformer(
        image_size=28, patch_size=14, width=64, layers=2, heads=1, mlp_ratio=4, output_dim=16, output_tokens=True,
        act_layer=clip.QuickGELU, final_ln_after_pool=True,
    )  # fmt: skip
    sizes = parity.TINY[kind] | {"vocab_size": ROWS} | ({"n_layers": 4} if kind == "mpt" else {"num_hidden_layers": 4})
    raw = getattr(transformers, parity.CLASSES[kind].replace("ForCausalLM", "Config"))(**sizes)
    decoder = getattr(transformers, parity.CLASSES[kind])(raw)
    utils.extend_instance(decoder, flamingo_lm.FlamingoLMMixin)
    decoder.set_decoder_layers_attr_name(LAYERS[kind])
    holder = torch.nn.Module()
    holder.visual = tower
    model = whole.Flamingo(holder, decoder, ROWS - 3, ROWS - 2, vis_dim=64, cross_attn_every_n_layers=every)
    model = parity.randomise(model.to(torch.float64 if dtype == np.float64 else torch.float32), torch)
    for name, parameter in model.named_parameters():  # a mean of 0.1 in a wide layer would hide all differences
        if parameter.ndim > 1:
            parameter.data = (parameter.data - 0.1) * (0.5 if "perceiver" in name else 1.0)
    return model, raw.to_json_string(use_diff=False)


def converted(theirs, language):
    """The model that `convert` makes of a file of the weights, `config.json` and `tokenizer.json`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        np.savez(folder / "weights.npz", **parity.arrays_of(theirs))
        (folder / "config.json").write_text(language)
        (folder / "tokenizer.json").write_bytes(tiny_tokenizer())
        options = Options(config=folder / "config.json", tokenizer=folder / "tokenizer.json")
        convert_from("open_flamingo", [folder / "weights.npz"], folder / "ours", options)
        return load_checkpoint(folder / "ours")


def whole(kind, dtype) -> float:
    """Largest difference of the logits of one prompt with two pictures, and text before the first."""
    torch, transform = importlib.import_module("torch"), importlib.import_module("open_clip.transform")
    theirs, language = build(kind, dtype)
    ours = converted(theirs, language)
    order = np.array(ours.tokenizer.vocabulary.order())
    tokens = np.array([[70, 80, IMAGE, 90, 100, ours.tokenizer.eoc, IMAGE, 200, 201]])
    rng, vision = np.random.default_rng(5), ours.config.vision
    pictures = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((40, 91, 3), (75, 28, 3))]
    media = [prepare_picture(picture, vision.side, vision.preparation) for picture in pictures]
    visual = encode_and_resample(ours, media)
    got = flamingo(ours.params, ours.frozen, tokens, phi(tokens), visual, ours.config, parts=ours.parts)
    prepare = transform.image_transform(28, is_train=False)
    pixels = torch.stack([prepare(Image.fromarray(picture)) for picture in pictures])[None, :, None]
    with torch.no_grad():
        want = theirs(pixels, torch.from_numpy(order[tokens]), torch.ones(1, 9).long()).logits.numpy()
    return parity.difference(got, want[..., order])
