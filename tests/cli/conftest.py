"""A tiny untrained checkpoint and some files of a user, made once for the session."""

import numpy as np
import pytest
from PIL import Image

from tinyflamingo import cli
from tinyflamingo.checkpoint import save_checkpoint
from tinyflamingo.data.video import write_video
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(untrained(np.random.default_rng(0), get_preset("smoke").config, tokenizer), folder)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder with two good pictures and a good video."""
    folder = tmp_path_factory.mktemp("media")
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:, 25:] = (220, 30, 40)
    Image.fromarray(pixels).save(folder / "red.png")
    Image.fromarray(pixels[:, ::-1]).save(folder / "other.png")
    write_video(folder / "clip.mp4", np.stack([np.roll(pixels, 5 * t, axis=1) for t in range(4)]))
    return folder


@pytest.fixture
def command(capsys):
    """Run a command line in this process; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as leaving:  # --help and --version
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
