"""The X-rays and their masks."""

import numpy as np
import pandas as pd
import pytest

from pacx.constants import CHESTX6_CLASSES
from pacx.phantom.radiograph import MASKS, render_laterals, render_radiographs
from pacx.phantom.state import STATES, sample_patients


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    return sample_patients(96, 1)


@pytest.fixture(scope="module")
def drawn(patients):
    return render_radiographs(patients, 64, 2, masks=True)


def test_same_seed_same_bytes(patients, drawn):
    again, none = render_radiographs(patients, 64, 2)
    assert np.array_equal(again, drawn[0])
    assert none == {}
    assert not np.array_equal(render_radiographs(patients, 64, 3)[0], drawn[0])


def test_images_and_masks(drawn):
    images, masks = drawn
    assert images.shape == (96, 64, 64)
    assert images.dtype == np.uint8
    assert set(masks) == set(MASKS)
    for name, mask in masks.items():
        assert mask.shape == images.shape, name
        assert mask.dtype == bool, name
    assert not (masks["lungs"] & ~masks["body"]).any()
    assert not (masks["lungs"] & masks["heart"]).any()
    assert 0.1 < masks["lungs"].mean() < 0.45
    assert 0.03 < masks["heart"].mean() < 0.2
    assert (masks["lungs"].sum(axis=(1, 2)) > 300).all()
    lungs, heart = images[masks["lungs"]].mean(), images[masks["heart"]].mean()
    assert lungs + 30 < heart


def test_devices_are_drawn_where_there_are_devices(patients, drawn):
    area = drawn[1]["devices"].sum(axis=(1, 2))
    assert (area[patients["pacemaker"]] > 10).all()
    assert (area[patients["tube"]] > 5).all()


def test_dilation_makes_the_heart_larger(patients):
    small, large = (
        render_radiographs(patients.assign(dilation=np.float32(z)), 64, 2, masks=True)[1]["heart"]
        for z in (-1.5, 1.5)
    )
    assert large.sum() > 1.25 * small.sum()


def test_without_coupling_the_picture_knows_nothing(patients, drawn):
    sick = patients.assign(**{name: patients[name] + np.float32(2) for name in STATES})
    assert np.array_equal(
        render_radiographs(patients, 64, 2, coupling=0.0)[0],
        render_radiographs(sick, 64, 2, coupling=0.0)[0],
    )
    assert not np.array_equal(render_radiographs(sick, 64, 2)[0], drawn[0])


def test_any_size_shows_the_same_patient(patients, drawn):
    large = render_radiographs(patients[:6], 128, 2, masks=True)[1]["lungs"].mean(axis=(1, 2))
    small = render_radiographs(patients[:6], 64, 2, masks=True)[1]["lungs"].mean(axis=(1, 2))
    assert np.abs(large - small).max() < 0.01
    assert render_laterals(patients[:3], 48, 2).shape == (3, 48, 48)


def test_patterns_change_the_lungs(patients):
    plain = render_radiographs(patients[:8].assign(pattern="Normal"), 64, 2)[0].astype(float)
    for pattern in set(CHESTX6_CLASSES) - {"Normal"}:
        ill = render_radiographs(patients[:8].assign(pattern=pattern), 64, 2)[0]
        assert np.abs(ill - plain).mean() > 0.5, pattern
