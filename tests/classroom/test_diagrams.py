"""The diagrams: letters for a projector, nothing cut off, nothing on top of something else."""

import io

import matplotlib
import pytest
from matplotlib.patches import FancyBboxPatch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from tinyflamingo.classroom import diagrams

TOWER = [("picture\n(Y, X, 3) = (32, 32, 3)", diagrams.DATA), ("gated block 0", diagrams.TRAINED)]
DRAWN = {
    "gated_block": diagrams.gated_block,
    "resampler_layer": diagrams.resampler_layer,
    "whole_model": lambda: diagrams.whole_model(TOWER, TOWER * 3),
}


@pytest.mark.parametrize("name", DRAWN)
def test_words_are_large_and_lie_in_a_box_or_outside_of_all(name):
    figure = DRAWN[name]()
    figure.canvas.draw()
    (axis,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axis.patches if isinstance(patch, FancyBboxPatch)]
    words = [text for text in axis.texts if text.get_text()]
    assert len(words) >= len(boxes) > 3
    assert 1000 <= figure.get_figwidth() * figure.dpi <= 1024
    for text in words:
        place = text.get_window_extent()
        assert text.get_size() >= 14
        assert figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= place.y0 and place.y1 <= figure.bbox.y1, text.get_text()
        for box in boxes:
            inside = box.x0 <= place.x0 and place.x1 <= box.x1 and box.y0 <= place.y0 and place.y1 <= box.y1
            assert inside or not box.overlaps(place), text.get_text()
    plt.close(figure)


def test_a_diagram_is_shown_as_a_small_picture(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    diagrams.show(diagrams.gated_block())
    assert shown[0].data.startswith(b"\x89PNG") and len(shown[0].data) < 30_000
    assert plt.imread(io.BytesIO(shown[0].data)).shape[1] == 1000
    assert not plt.get_fignums()
