"""Phantoms that are drawn again, larger."""

import numpy as np
import pytest
from PIL import Image

from pacx.data.datasets import load_dataset
from pacx.data.images import load_images
from pacx.phantom.hospital import write_hospital
from pacx.phantom.pictures import large_pictures

SIZES = {"chexpert": {"train": 24, "val": 6}, "phantom-truth": {"train": 6, "val": 3, "test": 5}}


@pytest.mark.parametrize(("name", "split"), [("chexpert", "val"), ("phantom-truth", "test")])
def test_a_phantom_drawn_again_is_the_same_patient(tmp_path, name, split):
    write_hospital(tmp_path, SIZES, image_size=32, ecg_hz=100, seed=7)
    dataset = load_dataset(name, tmp_path)
    names = list(dataset.split(split)["image"])[::-2]
    large = large_pictures(dataset, names, 128, tmp_path)
    assert large.shape == (len(names), 128, 128)
    shrunk = [np.array(Image.fromarray(x).resize((32, 32), Image.Resampling.BOX)) for x in large]
    written = load_images(dataset.root, names, 32, tmp_path)
    n = len(names)
    alike = np.corrcoef(np.reshape(shrunk, (n, -1)), written.reshape(n, -1))[:n, n:]
    assert (alike.argmax(axis=1) == np.arange(n)).all()
    # All but noise and fine texture is equal; of two patients no more than 0.8 was seen.
    assert alike.diagonal().min() > 0.85
    # Files that are large enough are read.
    same = large_pictures(dataset, names, 32, tmp_path)
    np.testing.assert_array_equal(same, written)
