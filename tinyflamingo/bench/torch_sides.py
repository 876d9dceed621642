"""The functions of PyTorch that the benchmark times: training steps, and parts of the model.

Each has the same inputs and results as our side of its line. Implements no section of the chapter. Not here: the model
(`torch_twins.py`), our side (`step_lines.py`, `part_lines.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflamingo.bench import torch_twins as twins
from tinyflamingo.bench.batches import far_first
from tinyflamingo.bench.contest import NotRun, Step
from tinyflamingo.model.vision_encoder import PIXEL_MEAN, PIXEL_SPREAD
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.muon import QUINTICS, Muon, is_moved


def to_torch(tree: Any, trains: bool = False) -> Any:
    """A tree of arrays (dicts and lists) as a tree of tensors (copies). With `trains` the leaves collect gradients."""
    if isinstance(tree, dict):
        return {name: to_torch(value, trains) for name, value in tree.items()}
    if isinstance(tree, list):
        return [to_torch(value, trains) for value in tree]
    return torch.tensor(tree).requires_grad_(trains)


def libraries() -> str:
    """The BLAS of PyTorch, and the instructions for which its own kernels are compiled."""
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return f"{blas.group(1) if blas else 'unknown BLAS'}, kernels for {torch.backends.cpu.get_cpu_capability()}"


class TrainingStep:
    """Loss, gradients, clipping and the optimisers of PyTorch on a copy of an optimiser's parameters."""

    def __init__(self, step: Step, compiled: bool = False) -> None:
        """Raises `NotRun` if the loss cannot be compiled on this machine."""
        self.params, self.batch = to_torch(step.optimiser.params, trains=True), to_torch(step.batch)
        self.loss, self.model_config, self.config = getattr(twins, step.loss), step.config, step.optimiser.config
        self.leaves = named_leaves(self.params)
        self.optimisers = self._optimisers(isinstance(step.optimiser, Muon), step.no_decay or "-")
        self.clipped = list(named_leaves(self.params["vision"]).values()) if self.config.agc else []
        if compiled:
            self._compile()

    def _optimisers(self, muon, no_decay):
        """The fused AdamW, and Muon, with as many iterations as ours, for the matrices (it takes no kernels)."""
        c = self.config
        moved = {name for name, leaf in self.leaves.items() if muon and is_moved(name) and leaf.ndim == 2}
        adamw = self._groups(self.leaves.keys() - moved, no_decay)
        made = [torch.optim.AdamW(adamw, lr=c.learning_rate, betas=(c.beta_1, c.beta_2), fused=True)]
        if moved:
            options = {"momentum": c.beta_1, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"}
            options["ns_steps"] = len(QUINTICS)
            made.append(torch.optim.Muon(self._groups(moved, no_decay), lr=c.learning_rate, **options))
        return made

    def _groups(self, names, no_decay):
        """The groups of parameters that have the same weight decay."""
        groups = {self.config.weight_decay: [], 0.0: []}
        for name in sorted(names):
            decays = self.leaves[name].ndim >= 2 and not name.startswith(no_decay)
            groups[self.config.weight_decay if decays else 0.0].append(self.leaves[name])
        return [{"params": leaves, "weight_decay": decay} for decay, leaves in groups.items() if leaves]

    def _compile(self):
        """Compile the loss and its gradient for the shapes of this batch and for the present number of threads."""
        torch.compiler.reset()
        self.loss = torch.compile(self.loss, dynamic=False)
        try:
            self.loss_and_gradients()
        except Exception as error:  # a missing C++ compiler, for example; PyTorch has no common class for these errors
            raise NotRun(f"torch.compile failed: {str(error).strip().splitlines()[0]}") from error

    def loss_and_gradients(self) -> tuple[float, dict[str, Any]]:
        """The loss, and the gradients by name."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss = self.loss(self.params, self.batch, self.model_config)
        loss.backward()
        return loss.item(), {name: p.grad for name, p in self.leaves.items()}

    def step(self) -> None:
        """An update like ours. Kernels have AdamW; Muon has its usual coefficients; the rate is constant."""
        self.loss_and_gradients()
        for p in self.clipped:
            adaptive_clip(p, self.config.agc)
        torch.nn.utils.clip_grad_norm_(self.leaves.values(), self.config.clip)
        for optimiser in self.optimisers:
            optimiser.step()


@torch.no_grad()
def adaptive_clip(p: Any, limit: float, epsilon: float = 1e-3) -> None:
    """Scale down the gradient of every output unit if its norm is above `limit` times the norm of the weights."""
    axes = tuple(range(p.ndim - 1)) if p.ndim >= 2 else tuple(range(p.ndim))
    norm_g = torch.linalg.vector_norm(p.grad, dim=axes, keepdim=True)
    norm_w = torch.linalg.vector_norm(p, dim=axes, keepdim=True)
    p.grad.mul_((limit * norm_w.clamp(min=epsilon) / norm_g.clamp(min=1e-6)).clamp(max=1.0))


def encoder(frozen: Params, media: Array, config: Any) -> Callable[[], Tensor]:
    """A function that computes the same as `encode_media`, for media of one frame."""
    frozen = to_torch({name: frozen[name] for name in ("vision", "feature_mean", "feature_scale")})
    pixels = torch.from_numpy(media[:, 0])

    @torch.inference_mode()
    def encode():
        normalised = (pixels.float() - PIXEL_MEAN) * (1 / PIXEL_SPREAD)
        features = twins.vision_encoder(frozen["vision"], normalised, config.vision)
        return ((features - frozen["feature_mean"]) * frozen["feature_scale"])[:, None]

    return encode


def resampler_gradients(params: Params, features: Array, g: Array, config: Any) -> Callable:
    """A function: the gradients of sum(g * resampler(features)), in the order of the parameters."""
    params = to_torch(params, trains=True)
    leaves = list(named_leaves(params).values())
    features, g = to_torch([features, g])
    return lambda: torch.autograd.grad(twins.perceiver_resampler(params, features, config), leaves, g)


def cross_attention_gradients(q: Array, k: Array, v: Array, phi: Array, g: Array) -> Callable:
    """A function: the gradients of q (B, T, H, K), k and v (B, N, R, H, K), from dense attention with a mask."""
    inputs, (phi, g) = to_torch([q, k, v], trains=True), to_torch([phi, g])

    def gradients():
        heads = (x.flatten(1, -3).transpose(1, 2) for x in inputs)
        attended = twins.masked_cross_attention(*heads, phi, k.shape[2])
        return torch.autograd.grad(attended, inputs, g.transpose(1, 2))

    return gradients


def runs_gradients(q: Array, k: Array, v: Array, phi: Array, g: Array) -> Callable:
    """The same gradients, if every run of equal phi (all >= 1) attends to its own medium only."""
    (q, k, v), runs = to_torch([q, k, v], trains=True), to_torch(runs_of(phi, k.shape[1]))
    (g,) = to_torch([g.reshape(-1, *g.shape[2:])])
    return lambda: torch.autograd.grad(twins.runs_cross_attention(q, k, v, runs), (q, k, v), g)


def runs_of(phi: Array, N: int) -> dict[str, Array]:
    """The runs of equal phi (B, T), for `runs_cross_attention`; N: media in each row."""
    media = (phi - 1 + N * np.arange(len(phi))[:, None]).ravel()
    starts = np.flatnonzero(np.diff(media, prepend=-1))
    lengths = np.diff(starts, append=media.size)
    within = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
    run = np.repeat(np.arange(len(starts)), lengths)
    places = run * lengths.max() + np.arange(media.size) - starts[run]
    return {"tokens": starts[:, None] + within, "media": media[starts], "places": places}


def greedy_decoder(
    params: Params, frozen: Params, prompt: Array, phi: Array, visual: Array, config: Any, n: int
) -> Callable[[], list[int]]:
    """A function: n tokens after a prompt (1, T), each time the most likely one, with both caches."""
    sizes, length = config.language, prompt.shape[1] + n
    params, language, visual = to_torch(params), to_torch(frozen["language"]), to_torch(visual[None])
    distances, first = to_torch(far_first(length, sizes.width)), to_torch({"tokens": prompt, "phi": phi})
    first["distances"], first["visible_from"] = distances, torch.zeros_like(first["tokens"])
    blocks = [language[f"block_{i}"] for i in range(sizes.layers)]
    table, projected = twins.joined_table(params, language), []
    for block in blocks:
        block["w_qkv"] = torch.cat([block["w_q"], block["w_k"], block["w_v"]], dim=1)
        projected.append(twins.projected_distances(block, distances, sizes))

    @torch.inference_mode()
    def decode():
        cache = {"table": table} | {f"block_{i}": _empty_cache(r) for i, r in enumerate(projected)}
        for i in config.gated_layers:
            cache[f"media_{i}"] = twins.media_keys_values(params[f"xattn_{i}"], visual, config)
        logits, tokens = twins.flamingo(params, visual, first | {"language": language}, config, cache), []
        for _ in range(n):
            tokens.append(int(logits[0, -1].argmax()))
            new = {"tokens": torch.tensor([[tokens[-1]]]), "phi": first["phi"][:, -1:], "language": language}
            logits = twins.flamingo(params, visual, new, config, cache)
        return tokens

    return decode


def _empty_cache(r):
    """Space for the keys and values of as many positions as there are projected distances r (H, K, S)."""
    k, v = r.new_zeros(2, 1, r.shape[0], r.shape[2], r.shape[1])
    return {"k": k, "v": v, "r": r, "length": 0}
