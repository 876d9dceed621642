"""tinyflamingo: Flamingo by hand, in readable NumPy, on a laptop.

    import tinyflamingo

    model = tinyflamingo.load()
    print(tinyflamingo.complete(model, [picture, "Output:"])["text"])

Importing the package takes milliseconds: the model is imported when one of these functions is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyflamingo.model.flamingo import TrainedFlamingo

__all__ = ["__version__", "complete", "load"]
__version__ = "0.2.0"


def load(folder=None) -> TrainedFlamingo:
    """The Flamingo of a checkpoint's folder, or of a run's folder; by default the one that ships with the package.

    Raises `tinyflamingo.errors.UserError`, in one line, for anything missing, cut or not matching.
    """
    from tinyflamingo.checkpoint import load_checkpoint, shipped_checkpoint

    return load_checkpoint(shipped_checkpoint() if folder is None else folder)


def complete(model: TrainedFlamingo, items: list, max_tokens: int = 24, **options: Any) -> dict:
    """Continue a prompt, a list of strings, pictures (uint8 (Y, X, 3)) and videos (uint8 (F, Y, X, 3)), in order.

    Returns {"text", "tokens", "log_probs", "phi", "prompt_tokens"}. options: `beams`, `sampling` and `rng`, as of
    `tinyflamingo.decoding.complete.complete`.
    """
    from tinyflamingo.decoding.complete import complete as complete_prompt

    return complete_prompt(model, items, max_tokens, **options)
