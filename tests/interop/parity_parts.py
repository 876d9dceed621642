"""The largest difference between our output and a peer's output on random weights, for each part.

The tests call these functions, and so does `parity_report.py`, which `python -m tinyflamingo parity` prints. The
peer is the code of its own package. Its weights come from its `state_dict` and enter ours through the tables of
`convert`; then both compute. float64 shows that the arithmetic is the same, float32 shows the difference for users.

Not here: the tables (`names.py`, `decoder_names.py`), and the peers' mistakes (`tests/interop/test_ports.py`).
"""

from __future__ import annotations

import importlib
import importlib.metadata

import numpy as np

from tinyflamingo.interop import decoder_names, names, peers
from tinyflamingo.model.interleave import batch_phi
from tinyflamingo.variants.decoders import decoder
from tinyflamingo.variants.ports import port_resampler, port_xattn_dense

MODULES = {  # the modules of a port's resampler and gated block
    "flamingo-pytorch": ("flamingo_pytorch.flamingo_pytorch",) * 2,
    "flamingo-mini": ("flamingo_mini.perceiver_resampler", "flamingo_mini.gated_cross_attention"),
    "open_flamingo": ("open_flamingo.src.helpers",) * 2,
}


def arrays_of(module) -> dict:
    """{name: array} of a torch module."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def randomise(module, torch, seed=0):
    """Draw all parameters again, also gates and gains, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) + 0.1
    return module.eval()


def resampler(peer, dtype) -> float:
    """Largest difference of a resampler's output: two documents of three media, two frames if possible."""
    torch, module = importlib.import_module("torch"), importlib.import_module(MODULES[peer][0])
    more = {"open_flamingo": {"max_num_media": 3, "max_num_frames": 2}, "flamingo-pytorch": {"num_media_embeds": 3}}
    theirs = module.PerceiverResampler(dim=16, depth=2, dim_head=4, heads=3, num_latents=5, **more.get(peer, {}))
    theirs = randomise(theirs.to(_torch_dtype(torch, dtype)), torch)
    B, N, F, S, D = 2, 3, 1 if peer == "flamingo-pytorch" else 2, 6, 16
    x = np.random.default_rng(1).standard_normal((B, N, F, S, D)).astype(dtype)
    shape = {"flamingo-pytorch": (B, N, S, D), "flamingo-mini": (B * N, F, S, D)}.get(peer, x.shape)
    with torch.no_grad():
        want = theirs(torch.from_numpy(x.reshape(shape))).numpy()
    config = peers.resampler_config(peer, arrays_of(theirs), head_size=4)
    params = names.import_arrays(names.resampler_rows(peer, config, ours=""), arrays_of(theirs), peer)
    got = np.concatenate([port_resampler(params, document, config) for document in x])
    return difference(got, want.reshape(got.shape))


def gated_block(peer, dtype) -> float:
    """Largest difference of a gated block's output, for masks that the port computes correctly: text before the
    first image, tags with their own image, a different number of images in each row."""
    theirs, config, params = port_block(peer, dtype)
    torch = importlib.import_module("torch")
    rng, (B, T, N, R, D, Dv) = np.random.default_rng(2), (2, 9, 3, 5, 16, config.resampler.width)
    h, media = rng.standard_normal((B, T, D)).astype(dtype), rng.standard_normal((B, N, R, Dv)).astype(dtype)
    tags = np.zeros((B, T), bool)
    tags[0, [1, 4, 5]], tags[1, [3]] = True, True
    with torch.no_grad():
        want = call_block(theirs, *map(torch.from_numpy, (h, media, tags))).numpy()
    phi = np.stack([batch_phi(row, N * b) for b, row in enumerate(np.cumsum(tags, axis=1))])
    return difference(port_xattn_dense(params, h, media.reshape(B * N, R, Dv), phi, config.xattn), want)


def port_block(peer, dtype, **more):
    """A port's gated block with random weights, and ours with the same: (theirs, config, params)."""
    torch, module = importlib.import_module("torch"), importlib.import_module(MODULES[peer][1])
    more |= {"flamingo-pytorch": {}, "flamingo-mini": {"dim_visual": 12, "n_visual": 5}}.get(peer, {"dim_visual": 12})
    theirs = module.GatedCrossAttentionBlock(dim=16, dim_head=4, heads=3, **more)
    theirs = randomise(theirs.to(_torch_dtype(torch, dtype)), torch)
    config = peers.xattn_config(peer, arrays_of(theirs), head_size=4)
    return theirs, config, names.import_arrays(names.xattn_rows(peer, config, ours=""), arrays_of(theirs), peer)


def call_block(theirs, h, media, tags):
    """The output of a port's gated block. flamingo-mini also returns keys and values."""
    out = theirs(h, media, tags)
    return out[0] if isinstance(out, tuple) else out


def _torch_dtype(torch, dtype):
    return torch.float64 if dtype == np.float64 else torch.float32


def difference(got, want) -> float:
    """Largest absolute difference; dtypes and shapes must agree."""
    if got.dtype != want.dtype or got.shape != want.shape:
        raise ValueError(f"ours is {got.dtype} {got.shape}, theirs is {want.dtype} {want.shape}")
    return float(np.max(np.abs(got - want)))


# ---------------------------------------------------------------- language models

TINY = {  # a small configuration of each family, with the names of its config.json
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32, "vocab_size": 40},
    "opt": {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 32,
        "ffn_dim": 48, "vocab_size": 40, "word_embed_proj_dim": 24,
    },
    "mpt": {"d_model": 24, "n_layers": 2, "n_heads": 3, "max_seq_len": 32, "vocab_size": 40},
}  # fmt: skip
CLASSES = {"gpt2": "GPT2LMHeadModel", "opt": "OPTForCausalLM", "mpt": "MptForCausalLM"}


def hugging_face(kind, torch, dtype):
    """A small decoder of `transformers` with random weights, and ours: (theirs, config, params)."""
    transformers = importlib.import_module("transformers")
    raw = getattr(transformers, CLASSES[kind].replace("LMHeadModel", "Config").replace("ForCausalLM", "Config"))
    # "eager" would compute the softmax in float32
    raw = raw(**TINY[kind], **{} if kind == "mpt" else {"attn_implementation": "sdpa"})
    theirs = randomise(getattr(transformers, CLASSES[kind])(raw).to(_torch_dtype(torch, dtype)), torch)
    config = decoder_names.hugging_face_config(theirs.config.to_dict())
    tensors = decoder_names.tidy(arrays_of(theirs), config)
    return theirs, config, names.import_arrays(decoder_names.language_rows(config), tensors, kind)


def language(kind, dtype) -> float:
    """Largest difference of the logits: two rows, the second padded on the left; the last three tokens with a cache."""
    torch = importlib.import_module("torch")
    theirs, config, params = hugging_face(kind, torch, dtype)
    tokens = np.random.default_rng(3).integers(0, config.vocab_size, (2, 12))
    visible_from = np.zeros((2, 12), int)
    visible_from[1, 4:] = 4
    real = np.arange(12) >= np.array([[0], [4]])
    places = np.maximum(np.arange(12) - np.array([[0], [4]]), 0)
    more = {"position_ids": torch.from_numpy(places)} if kind == "gpt2" else {}
    with torch.no_grad():
        want = theirs(torch.from_numpy(tokens), attention_mask=torch.from_numpy(real).long(), **more).logits.numpy()
    cache, got = {}, []
    for part in (slice(0, 9), slice(9, 10), slice(10, 11), slice(11, 12)):
        got.append(decoder(params, tokens[:, part], config, visible_from[:, part], cache))
    return difference(np.concatenate(got, axis=1)[real], want[real])
