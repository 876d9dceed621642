"""tinyflamingo: Flamingo by hand, in readable NumPy, on a laptop.

    import tinyflamingo

    model = tinyflamingo.load()
    print(tinyflamingo.complete(model, [picture, "Output:"])["text"])

Importing the package takes milliseconds: the model is imported when one of these functions is called.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from tinyflamingo.version import VERSION as __version__

if TYPE_CHECKING:
    from tinyflamingo.model.flamingo import TrainedFlamingo

__all__ = ["__version__", "complete", "load"]


def load(folder: str | PathLike | None = None) -> TrainedFlamingo:
    """The Flamingo in the folder of a checkpoint or of a run; by default the one that comes with the package.

    Raises `tinyflamingo.errors.UserError`, one line, if a file is missing, cut or does not match, or if the variable
    TINYFLAMINGO_THREADS is wrong.
    """
    from tinyflamingo.checkpoint import load_checkpoint, shipped_checkpoint
    from tinyflamingo.errors import UserError
    from tinyflamingo.ops.team import chosen_workers

    chosen_workers()  # a wrong variable is refused before any work, also where no thread starts
    if not isinstance(folder, str | PathLike | None):
        raise UserError(f"the folder of a checkpoint is a path, not of type {type(folder).__name__}")
    return load_checkpoint(shipped_checkpoint() if folder is None else folder)


def complete(model: TrainedFlamingo, items: list, max_tokens: int = 24, **options: Any) -> dict:
    """Continue a prompt, a list of strings, pictures (uint8 (Y, X, 3)) and videos (uint8 (F, Y, X, 3)), in order.

    Returns {"text", "tokens", "log_probs", "phi", "prompt_tokens", "finished", "probability", "threshold", "unlike"}.
    options: `beams`, `sampling` and `rng`, see `tinyflamingo.decoding.complete.complete`.
    """
    from tinyflamingo.decoding.complete import complete as complete_prompt

    return complete_prompt(model, items, max_tokens, **options)
