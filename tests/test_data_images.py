"""X-rays from disk: bit depth, channels, DICOM, broken files, the decoded cache, augmentation."""

import numpy as np
import pydicom.data
import pytest
import torch
from PIL import Image

from pacx.data.augment import Augmentation, augment
from pacx.data.images import load_images, normalise, read_image
from pacx.errors import PacxError

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))


def saved(tmp_path, name, image):
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_eight_bit_images_keep_their_grey_values(tmp_path, mode):
    image = Image.fromarray(RAMP)
    if mode in ("RGBA", "LA"):
        image.putalpha(255)
    path = saved(tmp_path, "a.png", image.convert(mode))
    assert np.abs(read_image(path).astype(int) - RAMP).max() <= 1


def test_sixteen_bit_png_is_scaled_not_truncated(tmp_path):
    wide = RAMP.astype(np.uint16) * 200
    path = saved(tmp_path, "a.png", Image.fromarray(wide))
    expected = np.round(wide / wide.max() * 255)
    assert np.abs(read_image(path) - expected).max() <= 1


def test_monochrome1_dicom_is_inverted():
    path = pydicom.data.get_testdata_file("RG1_UNCR.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    raw = pydicom.dcmread(path)
    assert raw.PhotometricInterpretation == "MONOCHROME1"
    image, pixels = read_image(path), raw.pixel_array.astype(float)
    assert image.shape == pixels.shape == (1955, 1841)
    assert np.corrcoef(image[::20, ::20].ravel(), pixels[::20, ::20].ravel())[0, 1] < -0.99


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(PacxError, match=r"x\.png"):
        read_image(tmp_path / "x.png")


def test_truncated_and_missing_images_are_refused(tmp_path):
    path = saved(tmp_path, "a.png", Image.fromarray(np.random.default_rng(0).integers(
        0, 255, (64, 64), dtype=np.uint8)))  # fmt: skip
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PacxError, match=r"a\.png"):
        read_image(path)
    with pytest.raises(PacxError, match="missing"):
        read_image(tmp_path / "b.png")


def test_cache_is_reused_and_follows_a_changed_file(tmp_path):
    path = saved(tmp_path, "a.png", Image.fromarray(RAMP))
    first = load_images(tmp_path, ["a.png"], 32, tmp_path / "cache")
    again = load_images(tmp_path, ["a.png"], 32, tmp_path / "cache")
    assert first.shape == (1, 32, 32) and first.filename == again.filename
    Image.fromarray(255 - RAMP).save(path)
    changed = load_images(tmp_path, ["a.png"], 32, tmp_path / "cache")
    assert changed.filename != first.filename
    assert np.abs(255 - first.astype(int) - changed).max() <= 1


def test_a_broken_image_leaves_no_cache_behind(tmp_path):
    saved(tmp_path, "a.png", Image.fromarray(RAMP))
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(PacxError, match=r"b\.png"):
        load_images(tmp_path, ["a.png", "b.png"], 32, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_normalise_gives_three_equal_scaled_channels():
    out = normalise(torch.full((2, 8, 8), 255, dtype=torch.uint8))
    assert out.shape == (2, 3, 8, 8)
    assert out[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)


def test_no_augmentation_is_the_identity():
    images = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    out, _ = augment(images, Augmentation(), torch.Generator())
    assert torch.allclose(out, images.float(), atol=1e-3)


def test_flip_mirrors_and_masks_follow_their_images():
    images = torch.zeros(4, 32, 32)
    images[:, 4:12, 20:30] = 255
    out, masks = augment(images, Augmentation(flip=1.0), torch.Generator(), masks=images > 0)
    assert torch.allclose(out, images.flip(-1), atol=1e-3)
    assert torch.equal(masks, images.flip(-1) > 0)
    turned = Augmentation(crop=(0.5, 1.0), flip=0.5, degrees=10, rotate=1.0)
    out, masks = augment(images, turned, torch.Generator().manual_seed(1), masks=images > 0)
    assert ((out > 127) == masks).float().mean() > 0.98


def test_every_image_draws_its_own_augmentation():
    images = torch.rand(1, 32, 32).expand(8, 32, 32) * 255
    out, _ = augment(images, Augmentation(crop=(0.5, 0.9)), torch.Generator().manual_seed(0))
    assert (out[0] - out[1:]).abs().amax((1, 2)).min() > 1
