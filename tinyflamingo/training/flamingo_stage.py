"""Stage three: resampler, gated blocks and `<EOC>` learn; encoder and language model are frozen.

Chapter §1 and §4; paper section 2.4 and appendix B.1. Every step takes one batch of each dataset
(interleaved pages, picture-text pairs, video-text pairs), weighs its gradient by lambda and adds
them up before one update. Training starts from gates of exactly 0; their first move follows the
gradient averaged over some batches (docs/deviations.md).

Not here: the documents (`data/tinyworld/pages.py`) and the model (`model/flamingo.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pages import page, pair, video
from tinyflamingo.data.tinyworld.pool import make_pool
from tinyflamingo.model.flamingo import encode_media, flamingo, gates, init_flamingo, see
from tinyflamingo.model.interleave import Sequence, encode_document, make_batch, phi, phi_next
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import flatten
from tinyflamingo.training.language_stage import mean_loss
from tinyflamingo.training.optimiser import AdamW

DATASETS = ("pages", "pairs", "videos")


class MediaFeatures:
    """Frozen features of a pool, computed once: media -> (M, F, S, Dv)."""

    def __init__(self, frozen, pool, config):
        self.pictures = encode_media(frozen, pool.pictures[:, None], config) if pool.scenes else None
        self.videos = encode_media(frozen, pool.videos, config) if pool.clips else None

    def of(self, media):
        """Features of a list of media of one kind (a batch holds pictures or videos, not both)."""
        table = self.videos if media and media[0].kind == "clip" else self.pictures
        return table[[medium.index for medium in media]]


def cut(sequence: Sequence, T) -> Sequence:
    """The first T tokens of a document, with the media whose tags are among them."""
    tokens = sequence.tokens[:T]
    return Sequence(tokens, sequence.weights[:T], sequence.media[: tokens.count(IMAGE)])


def batch_loss(params, frozen, batch, features, config):
    """Mean loss over the weighted tokens of a batch; features (M, F, S, Dv) of its media."""
    visual = see(params, features, config)
    logits = flamingo(params, frozen, batch.tokens[:, :-1], batch.phi[:, :-1], visual, config)
    return mean_loss(logits, batch.tokens[:, 1:], batch.weights[:, 1:])


class FlamingoStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "flamingo"

    def __init__(self, preset, rng, tokenizer, frozen):
        self.config, self.recipe, self.tokenizer = preset.config, preset.flamingo, tokenizer
        self.steps, self.frozen = self.recipe.steps, frozen
        r = self.recipe
        self.pool = make_pool(rng, r.singles, r.pairs, r.counts, r.clips, r.uncoloured)
        self.features = MediaFeatures(frozen, self.pool, self.config)
        # Weight decay 0 for the resampler, 0.1 for the rest (paper, appendix B.1.2).
        self.optimiser = AdamW(init_flamingo(rng, self.config), r.optimiser, no_decay=("resampler",))

    def batch(self, rng, dataset):
        """One batch of a dataset, by name."""
        index = DATASETS.index(dataset)
        sequences, modes = [], []
        for _ in range(self.recipe.rows[index]):
            kind, items = page(rng, self.pool) if dataset == "pages" else (dataset, self._single(rng, dataset))
            sequences.append(cut(encode_document(items, self.tokenizer), self.recipe.lengths[index]))
            ahead = kind == "web_page" and rng.random() < self.recipe.p_next
            modes.append(phi_next if ahead else phi)
        return make_batch(sequences, phi_of=modes)

    def _single(self, rng, dataset):
        return (pair if dataset == "pairs" else video)(rng, self.pool)

    def gradient(self, rng, step):
        """Gradient vector and what to log: all datasets accumulated, or one in turn (round-robin)."""
        if step == 0:
            self.open_gates(rng)
        names = DATASETS if self.recipe.accumulate else (DATASETS[step % len(DATASETS)],)
        total, info = 0.0, {}
        for name in names:
            weight = np.float32(self.recipe.weights[DATASETS.index(name)])
            info[f"loss_{name}"], gradients = self._loss_and_gradients(rng, self.batch(rng, name))
            total = total + weight * flatten(gradients)
        info["loss"] = sum(info.values()) / len(names)
        return total, info | {"gates": gates(self.optimiser.params)}

    def _loss_and_gradients(self, rng, batch):
        """Noise on the frozen features keeps the new layers from learning single pictures by heart."""
        features = self.features.of(batch.media)
        noise = rng.standard_normal(features.shape, dtype=np.float32) * np.float32(self.recipe.feature_noise)
        loss_and_gradients = ops.value_and_grad(batch_loss)
        return loss_and_gradients(self.optimiser.params, self.frozen, batch, features + noise, self.config)

    def open_gates(self, rng):
        """The first move, from exactly 0: at zero only the gates have a gradient, and one batch's
        sign is noise. So it is averaged over some batches, and every gate moves along its sign."""
        params = self.optimiser.params
        names = [(b, g) for b in params if b.startswith("xattn_") for g in ("alpha_xattn", "alpha_dense")]
        total = dict.fromkeys(names, 0.0)
        for _ in range(self.recipe.gate_batches):
            for dataset, weight in zip(DATASETS, self.recipe.weights, strict=True):
                _, gradients = self._loss_and_gradients(rng, self.batch(rng, dataset))
                for block, gate in names:
                    total[block, gate] += weight * float(gradients[block][gate])
        for (block, gate), slope in total.items():
            params[block][gate][...] = -np.sign(slope) * self.recipe.gate_push

    def result(self):
        """What the finished Flamingo adds to the frozen parts."""
        return {"params": self.optimiser.params}
