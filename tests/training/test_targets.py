"""What stage 2 may be distilled towards instead of the teachers' embeddings."""

import numpy as np
import pandas as pd
import pytest

from pacx.data.datasets.symile_mimic import Pairs
from pacx.errors import PacxError
from pacx.profile import load_profile
from pacx.run import Run
from pacx.training.distill import VARIANTS, distill
from pacx.training.targets import TARGETS, state_part, whiten


@pytest.fixture
def given():
    """Teachers' embeddings that depend on two states, with their pairs and states."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 2)).astype(np.float32)
    noise = rng.normal(size=(200, 6))
    teachers = {"ecg": (states @ rng.normal(size=(2, 6)) + noise).astype(np.float32)}
    observed = (rng.random((200, 5)) < 0.7).astype(np.float32)
    pairs = Pairs(
        pd.DataFrame({"patient": range(200)}),
        np.zeros((200, 8, 8), np.uint8),
        rng.normal(size=(200, 12, 30)).astype(np.float32),
        rng.random((200, 5)).astype(np.float32),
        observed,
    )
    return teachers, pairs, states


def test_the_states_part_and_the_rest_make_the_whole(given):
    teachers, _, states = given
    part = TARGETS["state part"](*given)["ecg"]
    rest = TARGETS["state removed"](*given)["ecg"]
    np.testing.assert_allclose(part + rest, teachers["ecg"], atol=1e-5)
    assert np.abs(np.cov(rest.T, states.T)[:6, 6:]).max() < 1e-5, "nothing linear of them is left"
    np.testing.assert_allclose(state_part(part, states), part, atol=1e-5)


def test_whitened_components_are_uncorrelated_and_of_variance_one():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 7))  # of rank 4
    whitened = whiten(values)
    assert whitened.shape == (300, 4)
    np.testing.assert_allclose(whitened.T @ whitened / 300, np.eye(4), atol=1e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_a_finite_row_for_every_pair(given, name):
    for target in TARGETS[name](*given).values():
        assert target.shape[0] == 200
        assert target.dtype == np.float32
        assert np.isfinite(target).all()


def test_missingness_knows_no_value(given):
    teachers, pairs, states = given
    other = pairs._replace(percentiles=1 - pairs.percentiles)
    for name, equal in {"missingness": True, "raw labs": False}.items():
        both = (TARGETS[name](teachers, p, states)["labs"] for p in (pairs, other))
        assert np.array_equal(*both) == equal


def test_variants_name_targets_that_there_are_and_real_patients_have_no_states(tmp_path):
    named = {variant.targets for variant in VARIANTS.values()} - {None}
    assert named == set(TARGETS)
    run = Run(load_profile("smoke", data_root=tmp_path), tmp_path)
    with pytest.raises(PacxError, match="true states, which only phantoms have"):
        distill(run, "pacx-states")
