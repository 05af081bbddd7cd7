"""X-rays from disk: bit depth, channels, DICOM, broken files, the decoded cache, augmentation."""

import gc
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pydicom.data
import pytest
import torch
from PIL import Image

from pacx.data import images
from pacx.data.augment import Augmentation, augment
from pacx.data.images import load_images, normalise, read_image, read_mask
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


def test_sixteen_bit_colour_keeps_its_high_byte(tmp_path):
    """Pillow writes no 16-bit colour, so this PNG is made by hand."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    for channels, kind in ((3, 2), (4, 6)):
        wide = np.repeat((RAMP.astype(">u2") * 257)[:, :, None], channels, axis=2)
        wide[..., 3:] = 65_535  # opaque
        rows = b"".join(b"\0" + row.tobytes() for row in wide)
        header = struct.pack(">IIBBBBB", 64, 48, 16, kind, 0, 0, 0)
        path = tmp_path / f"{channels}.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        )
        assert np.abs(read_image(path).astype(int) - RAMP).max() <= 1


def test_values_that_are_not_finite_are_refused(tmp_path):
    floats = RAMP.astype(np.float32)
    good = read_image(saved(tmp_path, "a.tiff", Image.fromarray(floats)))
    assert np.abs(good - np.round(floats / floats.max() * 255)).max() <= 1
    floats[3, 3] = np.inf
    with pytest.raises(PacxError, match=r"b\.tiff holds values that are not finite"):
        read_image(saved(tmp_path, "b.tiff", Image.fromarray(floats)))


def test_masks_that_would_be_read_as_empty_are_refused(tmp_path):
    inside = RAMP > 100
    path = saved(tmp_path, "a.png", Image.fromarray(inside))
    assert np.array_equal(read_mask(path), inside)
    with pytest.raises(PacxError, match=r"b\.png.*brightest value is 1 .*0 outside and 255"):
        read_mask(saved(tmp_path, "b.png", Image.fromarray(inside.astype(np.uint8))))
    palette = Image.fromarray(inside.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    with pytest.raises(PacxError, match=r"c\.png.*brightest value is 38"):
        read_mask(saved(tmp_path, "c.png", palette))
    assert not read_mask(saved(tmp_path, "d.png", Image.new("L", (8, 8)))).any()
    everything = np.full((8, 8), 65535, np.uint16)
    assert read_mask(saved(tmp_path, "e.png", Image.fromarray(everything))).all()
    assert not read_mask(saved(tmp_path, "f.png", Image.fromarray(0 * everything))).any()


def test_dicom_without_an_image_is_refused():
    path = pydicom.data.get_testdata_file("waveform_ecg.dcm", download=False)
    with pytest.raises(PacxError, match="no PixelData"):
        read_image(path)


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
    assert first.shape == (1, 32, 32)
    assert first.filename == again.filename
    Image.fromarray(255 - RAMP).save(path)
    changed = load_images(tmp_path, ["a.png"], 32, tmp_path / "cache")
    assert changed.filename != first.filename
    assert np.abs(255 - first.astype(int) - changed).max() <= 1


def test_cache_is_keyed_by_content_not_by_place_or_date(tmp_path):
    (tmp_path / "here").mkdir()
    path = saved(tmp_path / "here", "a.bmp", Image.fromarray(RAMP))
    facts = path.stat()
    first = load_images(tmp_path / "here", ["a.bmp"], 32, tmp_path / "cache")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = load_images(tmp_path / "there", ["a.bmp"], 32, tmp_path / "cache")
    assert moved.filename == first.filename
    path = saved(tmp_path / "there", "a.bmp", Image.fromarray(255 - RAMP))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    changed = load_images(tmp_path / "there", ["a.bmp"], 32, tmp_path / "cache")
    assert changed.filename != first.filename


def test_a_broken_image_leaves_no_cache_behind(tmp_path):
    saved(tmp_path, "a.png", Image.fromarray(RAMP))
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(PacxError, match=r"b\.png"):
        load_images(tmp_path, ["a.png", "b.png"], 32, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("heir", ["the same process", "another process"])
def test_a_stopped_decode_goes_on_where_it_was(tmp_path, monkeypatch, heir):
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((8, 8), i, np.uint8) + np.eye(8, dtype=np.uint8)).save(
            tmp_path / name
        )
    read, asked = images._squash, []

    def stop(path, *rest):
        asked.append(path.name)
        if path.name == "5.png":
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(images, "BLOCK", 2)
    monkeypatch.setattr(images, "_squash", stop)
    with pytest.raises(KeyboardInterrupt):
        load_images(tmp_path, names, 8, tmp_path / "cache")
    (partial,) = (tmp_path / "cache").iterdir()
    if heir == "another process":
        partial.rename(partial.with_name(partial.name.replace(f".{os.getpid()}.", ".4194999.")))
    monkeypatch.setattr(images, "_squash", lambda *a: asked.append(a[0].name) or read(*a))
    asked.clear()
    decoded = load_images(tmp_path, names, 8, tmp_path / "cache")
    assert sorted(asked) == names[4:]
    assert decoded[:, 0, 1].tolist() == list(range(10))
    assert [f.suffix for f in (tmp_path / "cache").iterdir()] == [".npy"]


def test_memory_grows_with_the_names_and_hashes_only(tmp_path, monkeypatch):
    saved(tmp_path, "a.png", Image.fromarray(RAMP))
    monkeypatch.setattr(images, "BLOCK", 64)

    def peak(count: int, attempt: int = 0) -> int:
        gc.collect()
        tracemalloc.start()
        cache = tmp_path / f"cache-{count}-{attempt}"
        decoded = load_images(tmp_path, ["a.png"] * count, 32, cache)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(decoded, np.memmap)
        assert decoded.shape == (count, 32, 32)
        return found

    peak(10)  # fills caches that are kept
    # The smallest of three: when rubbish is collected is not what is tested.
    few, more = (min(peak(count, i) for i in range(3)) for count in (500, 1500))
    # A hash is 113 bytes, its pair with the name 56 and two places in lists 16; the text that the
    # key is made of has some 80 bytes an image, and is there twice. A queued task alone has more
    # than 1,000, and a decoded image here 1,024.
    assert more - few < 1000 * 600


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
