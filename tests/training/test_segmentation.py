import numpy as np
import pytest
from safetensors.torch import save_model

from pacx.errors import PacxError
from pacx.models.segmenter import Segmenter
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.training.segmentation import scores_per_image, segment


def _square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(
    ("predicted", "truth", "dice", "iou"),
    [
        (_square(2, 2, 4), _square(2, 2, 4), 1.0, 1.0),
        (_square(2, 2, 4), _square(8, 8, 4), 0.0, 0.0),
        (_square(2, 2, 4), _square(2, 4, 4), 0.5, 1 / 3),  # half of each overlaps
        (_square(0, 0, 0), _square(2, 2, 4), 0.0, 0.0),
        (_square(0, 0, 0), _square(0, 0, 0), 1.0, 1.0),  # nothing there, nothing found
    ],
)
def test_closed_forms(predicted, truth, dice, iou):
    scores = scores_per_image(predicted[None], truth[None].astype(np.uint8))
    assert scores["Dice"][0] == pytest.approx(dice)
    assert scores["IoU"][0] == pytest.approx(iou)


def test_every_target_has_its_own_decoder(tmp_path):
    run = open_run(load_profile("smoke"), tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (32, 64, 64)).astype(np.uint8)
    everything, nothing = np.ones_like(images), np.zeros_like(images)
    full = segment(run, "full", "random", (images, everything), images[:4])
    empty = segment(run, "empty", "random", (images, nothing), images[:4])
    assert full.shape == (4, 64, 64)
    assert full.mean() > empty.mean()
    again = segment(run, "full", "random", (images, everything), images[:4])
    np.testing.assert_array_equal(again, full)
    other = run.artefact("segmenter-full-random") / "model.safetensors"
    save_model(Segmenter(8, 8), str(other))
    with pytest.raises(PacxError, match="do not fit Segmenter"):
        segment(run, "full", "random", (images, everything), images[:4])
    assert {"segmenter-full-random", "segmenter-empty-random"} <= {
        folder.name for folder in run.artefacts.iterdir()
    }
