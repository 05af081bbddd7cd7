"""Mask-aware denoising autoencoder of blood tests, stage 1 of the paper."""

import torch
from torch import Tensor, nn


class LabAutoencoder(nn.Module):
    """Encodes percentiles together with which labs were observed; predicts all percentiles.

    `observed` is 1 where a lab was measured and 0 where it was not. Percentiles are multiplied by
    it inside every method, so that whatever stands in an unmeasured place (Symile-MIMIC stores the
    training mean there) cannot reach the network, in training or later.

    Args:
        n_labs: Number of labs (the paper: 50).
        hidden: Width of the hidden layers (512).
        width: Width D of the embedding (256).
    """

    def __init__(self, n_labs: int = 50, hidden: int = 512, width: int = 256):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(2 * n_labs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, n_labs), nn.Sigmoid()
        )

    def forward(self, percentiles: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and predict.

        Args:
            percentiles: (N, n_labs) in [0, 1]; any value, NaN too, where not observed.
            observed: (N, n_labs), 1 = measured; in training, what `corrupt` left of it.

        Returns:
            The predicted percentiles (N, n_labs) in (0, 1) and the embedding (N, D).
        """
        embedding = self.embed(percentiles, observed)
        return self.decoder(embedding), embedding

    def embed(self, percentiles: Tensor, observed: Tensor) -> Tensor:
        """Embed percentiles (N, n_labs) with their `observed` (N, n_labs): (N, D)."""
        return self.encoder(torch.cat([_zero_unobserved(percentiles, observed), observed], dim=1))


def corrupt(
    observed: Tensor, drop: float = 0.15, generator: torch.Generator | None = None
) -> Tensor:
    """Hide a random share of the observed labs (the paper: 15 %).

    Args:
        observed: (N, n_labs), 1 = measured.
        drop: Probability of hiding each measured lab.
        generator: For repeatable draws, of whatever device.

    Returns:
        (N, n_labs), 1 = measured and still shown.
    """
    source = observed.device if generator is None else generator.device
    draw = torch.rand(observed.shape, generator=generator, device=source).to(observed.device)
    return observed * (draw >= drop).to(observed.dtype)


def masked_mse(prediction: Tensor, percentiles: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error over the observed labs, those that `corrupt` hid included: a scalar."""
    error = (prediction - _zero_unobserved(percentiles, observed)).square()
    return (error * observed).sum() / (observed.sum() + 1e-6)


def _zero_unobserved(percentiles: Tensor, observed: Tensor) -> Tensor:
    # Not a product: 0 * NaN is NaN.
    return torch.where(observed == 1, percentiles, torch.zeros_like(percentiles))
