import pytest
import torch

from pacx.models.encoder import build_encoder, encode
from pacx.models.mae import MaskedAutoencoder


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MaskedAutoencoder(build_encoder(32, 8, 48, 2, 3), 32, 1, 2).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("ratio", "removed"), [(0.9, 15), (0.75, 12), (0.5, 8)])
def test_the_stated_share_is_removed(model, images, ratio, removed):
    out = model(images, ratio)
    assert out.mask.sum(dim=1).tolist() == [removed] * 3
    assert out.latent.shape == (3, 1 + 16 - removed, 48)
    assert len({tuple(row.tolist()) for row in out.mask}) > 1  # each image has its own mask


def test_loss_counts_removed_patches_only(model, images):
    out = model(images, 0.75)
    target, removed = model.patchify(images), out.mask.bool()
    assert torch.allclose(out.loss, (out.prediction - target)[removed].square().mean())
    target[~removed] += 5  # another target where patches were kept: no effect
    loss = ((out.prediction - target).square().mean(2) * out.mask).sum() / out.mask.sum()
    assert torch.allclose(out.loss, loss)


def test_encoder_never_sees_removed_pixels(model, images):
    noise = torch.rand(3, 16)
    out = model(images, 0.75, noise)
    patches = model.patchify(images)
    patches[out.mask.bool()] = 100.0
    changed = model(model.unpatchify(patches), 0.75, noise)
    assert torch.equal(changed.latent, out.latent)
    assert torch.equal(changed.prediction, out.prediction)
    assert changed.loss > out.loss


def test_visible_embedding_is_the_encoders_own(model, images):
    """Gathering pixels first must equal the convolution over the whole image."""
    noise = torch.arange(16.0).expand(3, -1)
    kept = model(images, 1 / 16 + 1e-3, noise).latent  # 14 of 16 patches, in order
    encoder = model.encoder
    tokens = encoder._pos_embed(encoder.patch_embed(images))[:, : kept.shape[1]]
    assert torch.allclose(encoder.norm(encoder.blocks(tokens)), kept, atol=1e-5)


def test_training_reaches_every_weight(model, images):
    model.train()(images, 0.75).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_reconstruction_keeps_visible_patches(model, images, norm_pix_loss):
    model.norm_pix_loss = norm_pix_loss
    out = model(images, 0.75)
    seen, pasted = (model.patchify(x) for x in model.reconstruct(images, out))
    target, removed = model.patchify(images), out.mask.bool()
    assert torch.equal(pasted[~removed], target[~removed])
    assert torch.equal(seen[~removed], target[~removed])
    assert seen[removed].isnan().all()
    if norm_pix_loss:  # the prediction must come back in the image's own scale
        perfect = (target - target.mean(2, keepdim=True)) / target.std(2, keepdim=True)
        _, pasted = model.reconstruct(images, out._replace(prediction=perfect))
        assert torch.allclose(pasted, images, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (3, 1, 32, 32)])
def test_images_of_another_shape_are_not_cut_into_patches(model, shape):
    with pytest.raises(RuntimeError, match="shape"):
        model(torch.zeros(shape), 0.75)


def test_whole_image_tokens(model, images):
    cls, patches = encode(model.encoder, images)
    assert cls.shape == (3, 48)
    assert patches.shape == (3, 16, 48)
