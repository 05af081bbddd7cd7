"""The same training twice gives the same bytes; other thread counts, nearly the same weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from pacx.models.encoder import build_encoder
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import load_profile
from pacx.training.fit import fit
from pacx.training.mae import MaePretraining

STEPS = 8
SETTINGS = load_profile("smoke").mae.model_copy(update={"batch_size": 16})
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32), dtype=np.uint8)


def trained(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(3)
        mae = MaskedAutoencoder(build_encoder(32, 8, 48, 2, 3), 32, 1, 2)
        history = fit(MaePretraining(mae, 0.75, SETTINGS, 3), [IMAGES], "tiny", steps=STEPS)
        return mae.state_dict(), history
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_training_twice_gives_the_same_bytes(threads):
    (first, losses), (second, again) = trained(threads), trained(threads)
    assert save(first) == save(second)
    assert losses.equals(again)


def test_thread_counts_agree_within_the_steps_of_adam():
    """Threads add in another order: gradients differ by rounding.

    Adam divides a gradient by its own size, so where a gradient is itself about zero, rounding may
    turn a whole step around: no weight can differ by more than two steps of the learning rate each
    time. Nearly all others, and the loss, differ by rounding alone.
    """
    (one, losses), (two, others) = trained(1), trained(2)
    difference = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
    assert difference.max() <= 2 * STEPS * SETTINGS.learning_rate
    assert difference.quantile(0.99) < 1e-5
    np.testing.assert_allclose(losses["loss"], others["loss"], rtol=1e-5)
