"""Augmentation of a whole batch at once, with its own random draw for every image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image; a probability of 0 switches a part off.

    Attributes:
        crop: Smallest and largest share of the area that is kept.
        flip: Probability of a mirror image.
        degrees: Largest rotation; applied with probability `rotate`.
        jitter: Largest relative change of brightness and contrast; probability `jitter_p`.
        blur: Probability of a 3x3 binomial blur.
        erase: Probability that a rectangle of 2 to 10 % of the area is greyed out.
    """

    crop: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    degrees: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.0
    jitter_p: float = 0.0
    blur: float = 0.0
    erase: float = 0.0


#: Stage 1 as far as the paper states it: crop of half to all of the area, mirror.
PRETRAINING = Augmentation(crop=(0.5, 1.0), flip=0.5)
#: Stage 2 as far as the paper states it. No mirror: the heart's side carries meaning for the ECG.
DISTILLATION = Augmentation(
    crop=(0.75, 1.0), degrees=10, rotate=0.6, jitter=0.2, jitter_p=0.3, blur=0.15, erase=0.25
)
#: Stage 3, segmentation, as far as the paper states it.
SEGMENTATION = Augmentation(flip=0.5, degrees=10, rotate=1.0)


def augment(
    images: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator,
    masks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Augment a batch; masks follow the geometry of their images.

    Args:
        images: (N, H, W) uint8 or float in [0, 255].
        how: What may happen.
        generator: CPU generator of every random draw.
        masks: (N, H, W), moved with the images by nearest neighbours.

    Returns:
        (N, H, W) float32 in [0, 255], and the masks or None.

    Example:
        >>> grey, _ = augment(images, Augmentation(flip=0.5), torch.Generator().manual_seed(0))
    """
    n, device = len(images), images.device

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator).to(device)

    zoom = (how.crop[0] + (how.crop[1] - how.crop[0]) * draw()).sqrt()
    shift = (2 * draw(2) - 1) * (1 - zoom)[:, None]
    mirror = 1 - 2 * (draw() < how.flip).float()
    angle = torch.deg2rad((2 * draw() - 1) * how.degrees) * (draw() < how.rotate)
    grid = _grid(zoom, angle, mirror, shift, images.shape[1:])
    grey = F.grid_sample(images.float()[:, None], grid, align_corners=False)
    if masks is not None:
        moved = F.grid_sample(masks.float()[:, None], grid, mode="nearest", align_corners=False)
        masks = moved[:, 0].to(masks.dtype)

    def change() -> torch.Tensor:
        amount = 1 + (2 * draw() - 1) * how.jitter * (draw() < how.jitter_p)
        return amount[:, None, None, None]

    if how.jitter_p:
        grey = grey * change()
        mean = grey.mean((1, 2, 3), keepdim=True)
        grey = ((grey - mean) * change() + mean).clamp(0, 255)
    if how.blur:
        chosen = draw() < how.blur
        grey[chosen] = _blur(grey[chosen])
    if how.erase:
        grey = grey.masked_fill(_rectangles(draw, how.erase, grey.shape[-2:])[:, None], 127.0)
    return grey[:, 0], masks


def _grid(
    zoom: torch.Tensor,
    angle: torch.Tensor,
    mirror: torch.Tensor,
    shift: torch.Tensor,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Where pixels come from, (N, H, W, 2) as (x, y) in [-1, 1]; `F.affine_grid` is slower."""
    height, width = ((2 * torch.arange(s, device=zoom.device) + 1) / s - 1 for s in shape)
    cos, sin = (zoom * angle.cos())[:, None], (zoom * angle.sin())[:, None]
    mirror = mirror[:, None]
    x = (cos * mirror * width + shift[:, :1])[:, None] - (sin * height)[:, :, None]
    y = (sin * mirror * width + shift[:, 1:])[:, None] + (cos * height)[:, :, None]
    return torch.stack([x, y], -1)


def _blur(grey: torch.Tensor) -> torch.Tensor:
    """Weights 1, 2, 1 along both axes of (N, 1, H, W); edges repeat."""
    wide = F.pad(grey, (1, 1, 1, 1), "replicate")
    rows = (wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def _rectangles(draw, probability: float, shape: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) bool: True inside each image's rectangle, nowhere without one."""
    area, aspect, centre = 0.02 + 0.08 * draw(), torch.exp(draw() - 0.5), draw(2)
    half = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1) / 2
    axes = [torch.linspace(0, 1, s, device=area.device)[None] for s in shape]
    inside = [(axis - centre[:, i, None]).abs() < half[:, i, None] for i, axis in enumerate(axes)]
    return inside[0][:, :, None] & inside[1][:, None, :] & (draw() < probability)[:, None, None]
