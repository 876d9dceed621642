"""`train --from CHECKPOINT`: a run that goes on from a finished model. Only stage three trains.

Chapter §4: encoder and language model are frozen, so they and the tokenizer are those of the checkpoint, and resampler
and gated blocks go on from their numbers. The run does not copy the checkpoint: it keeps its path and its checksum, so
a resumed run needs the same checkpoint.

Not here: the stage (`stages.py`), and reading the files (`checkpoint.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinyflamingo.checkpoint import CARD, find_checkpoint, load_checkpoint, shipped_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.files import read_json
from tinyflamingo.language import _
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.training.presets import PRESETS, Preset, get_preset
from tinyflamingo.variants.registry import config_to_dict

SHIPPED = "toy"  # the short name of the checkpoint that comes with the package
POOL = 0.25  # share of TinyWorld's pictures that a run needs which does not begin from nothing
SAVE_EVERY = 50  # steps between saved states: the run is short, and its state is small
RATE = 0.3  # factor on the learning rate of stage three: the parameters are no longer random
KINDS = ("singles", "uncoloured", "pairs", "counts", "clips", "wild", "digits", "sums")


def checkpoint_folder(start: str) -> Path:
    """The folder of a checkpoint, by its path or by the short name of the shipped one."""
    return shipped_checkpoint() if start == SHIPPED and not Path(start).exists() else Path(start)


def load_start(start: str, sha256: str | None = None) -> TrainedFlamingo:
    """The model of the checkpoint. sha256: of its weights, if the run has begun. `UserError` if it is another one."""
    model = load_checkpoint(checkpoint_folder(start))
    if sha256 not in (None, weights_of(start)):
        raise UserError(f"the run began from another checkpoint than {start} is now: put the old one back")
    return model


def weights_of(start: str) -> str:
    """The checksum of the checkpoint's weights, from its card."""
    return str(read_json(find_checkpoint(checkpoint_folder(start)) / CARD)["sha256"])


def preset_of(model: TrainedFlamingo) -> str:
    """The preset whose recipe fits the checkpoint: its own, or `toy`."""
    name = model.info.get("preset")
    return name if name in PRESETS and not PRESETS[name].reads_archives else "toy"


def knows_tinyworld(model: TrainedFlamingo) -> bool:
    """Whether the checkpoint was trained on TinyWorld's pictures."""
    own = model.info.get("data") or {}
    is_public = not isinstance(model.tokenizer, Tokenizer)
    return not is_public and preset_of(model) == model.info.get("preset") and own.get("mix", 0.5) < 1


def check_sizes(model: TrainedFlamingo, start: str, preset: str | None, side: int | None, vocab: int | None) -> None:
    """`UserError`, one line, for options that ask for other sizes than those of the checkpoint."""
    sizes = {"side": model.config.vision.side, "vocab": len(model.tokenizer)}
    for name, given in (("side", side), ("vocab", vocab)):
        if given not in (None, sizes[name]):
            raise UserError(f"--{name} {given} does not fit: {start} has {sizes[name]}; leave out --{name}")
    if preset is None:
        return
    own, wanted = (config_to_dict(config) for config in (model.config, get_preset(preset).config))
    for raw in (own, wanted):
        for part, name in (("vision", "side"), ("language", "vocab_size"), ("text_tower", "vocab_size")):
            raw[part].pop(name, None)
    other = [part for part in own if own[part] != wanted[part]]
    if other or get_preset(preset).reads_archives:
        what = _(f"another {other[0]}" if other else "other data")
        raise UserError(f"--preset {preset} does not fit: it has {what} than {start}; leave out --preset")


def fitted(preset: Preset, model: TrainedFlamingo) -> Preset:
    """The preset with the model's sizes, without what only the first two stages need, and with a smaller pool."""
    recipe, least = preset.flamingo, get_preset("smoke").flamingo
    numbers = {name: (getattr(recipe, name), getattr(least, name)) for name in KINDS}
    pool = {name: max(round(POOL * whole), min(whole, few)) for name, (whole, few) in numbers.items()}
    optimiser = replace(recipe.optimiser, learning_rate=RATE * recipe.optimiser.learning_rate)
    flamingo = replace(recipe, optimiser=optimiser, **pool)
    contrastive = replace(preset.contrastive, families=0)
    often = min(preset.save_every, SAVE_EVERY)
    return replace(preset, config=model.config, flamingo=flamingo, contrastive=contrastive, pace=(), save_every=often)
