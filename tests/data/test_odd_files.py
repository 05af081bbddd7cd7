"""Files of kinds that public bug reports describe: read as a viewer shows them, or refused."""

import io
import os
import zlib
from struct import pack

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    generate_uid,
)

from pacx.data import dicom
from pacx.data.ecg import read_ecg
from pacx.data.images import load_images, read_image, read_mask
from pacx.errors import PacxError

#: Twelve bits, dark on the left, as in the real trap: tissue in between, nothing at the ends.
RAMP = np.tile(np.arange(64, dtype=np.uint16) * 60, (48, 1))
SHOWN = RAMP / RAMP.max()


def write_dicom(path, pixels, **elements):
    """One grey frame; `elements` replace others, None removes one."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = elements.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = ComputedRadiographyImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.BitsAllocated = pixels.dtype.itemsize * 8
    file.BitsStored = elements.pop("BitsStored", file.BitsAllocated)
    file.HighBit = file.BitsStored - 1
    file.PixelData = pixels.tobytes()
    for name, value in elements.items():
        delattr(file, name) if value is None else setattr(file, name, value)
    if file.file_meta.TransferSyntaxUID.is_compressed:
        file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)
    return path


def lut(values, bits=16, first=0):
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [len(values), first, bits], "US"
    item.LUTData = np.asarray(values, "<u2").tobytes()
    return [item]


def palette(values, bits=16):
    channels = [values] * 3 if np.ndim(values) == 1 else values
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, channel in zip(("Red", "Green", "Blue"), channels, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = channel.astype("<u2").tobytes()
    return elements


def jpeg2000(pixels):
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "JPEG2000", irreversible=False, no_jp2=True)
    return {"TransferSyntaxUID": JPEG2000Lossless, "PixelData": encapsulate([coded.getvalue()])}


def with_values(value, where=np.s_[:, :8], base=RAMP):
    changed = base.copy()
    changed[where] = value
    return changed


MARKED = with_values(RAMP[5:10, 5:10] | 0xF000, np.s_[5:10, 5:10])
SIGNED = RAMP.astype(np.int16) - 2000
INDICES = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
FALLING = np.arange(256)[::-1] * 257
WINDOW = {"WindowCenter": 1890, "WindowWidth": 3780}
FLIPPED = 1 - SHOWN

#: Pixels, elements, what a viewer shows.
DICOMS = {
    "plain": (RAMP, {"BitsStored": 12}, SHOWN),
    "monochrome1": (RAMP, {"PhotometricInterpretation": "MONOCHROME1"}, FLIPPED),
    "inverse": (RAMP, {"PresentationLUTShape": "INVERSE"}, FLIPPED),
    "inverse, said twice": (
        RAMP,
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        FLIPPED,
    ),
    "negative slope": (RAMP, {"RescaleSlope": -10, "RescaleIntercept": 40_000}, FLIPPED),
    "negative slope without an intercept": (RAMP, {"RescaleSlope": -1}, FLIPPED),
    "negative slope, window": (
        RAMP,
        {"RescaleSlope": -1, "RescaleIntercept": 3780, **WINDOW},
        FLIPPED,
    ),
    "modality LUT": (RAMP, {"ModalityLUTSequence": lut(np.arange(3781)[::-1])}, FLIPPED),
    "palette": (INDICES, palette(FALLING), FLIPPED),
    "overlay in the upper bits": (MARKED, {"BitsStored": 12}, SHOWN),
    "overlay in the upper bits, JPEG 2000": (MARKED, {"BitsStored": 12, **jpeg2000(MARKED)}, SHOWN),
    "signed": (SIGNED, {}, SHOWN),
    "signed, 12 bits stored": (SIGNED & 0x0FFF, {"BitsStored": 12}, SHOWN),
    "values in the upper bits": (RAMP << 4, {"BitsStored": 12, "HighBit": 15}, SHOWN),
    "padding above": (with_values(65_535), {"PixelPaddingValue": 65_535}, SHOWN),
    "padding above what is stored": (
        with_values(65_535),
        {"BitsStored": 12, "PixelPaddingValue": 65_535},
        SHOWN,
    ),
    "padding below": (with_values(-32_768, base=SIGNED), {"PixelPaddingValue": -32_768}, SHOWN),
    "padding range": (
        with_values(np.arange(60_000, 60_008, dtype=np.uint16)),
        {"PixelPaddingValue": 65_535, "PixelPaddingRangeLimit": 60_000},
        SHOWN,
    ),
    "padding, monochrome1": (
        with_values(0),
        {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"},
        FLIPPED,
    ),
    "a marker": (with_values(65_535, np.s_[2:6, 2:7]), {}, with_values(1, np.s_[2:6, 2:7], SHOWN)),
    "window": (RAMP, WINDOW, SHOWN),
    "two windows": (RAMP, {"WindowCenter": [1890, 5], "WindowWidth": [3780, 2]}, SHOWN),
    "linear exact": (RAMP, WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}, SHOWN),
    "sigmoid": (
        RAMP,
        {"WindowCenter": 1890, "WindowWidth": 3000, "VOILUTFunction": "SIGMOID"},
        1 / (1 + np.exp(-4 * (RAMP - 1890.0) / 3000)),
    ),
    "window without a width": (RAMP, {"WindowCenter": 100, "WindowWidth": 0}, SHOWN),
    "narrow window": (
        RAMP,
        {"WindowCenter": 1890, "WindowWidth": 1000},
        np.clip((RAMP - 1390.0) / 1000, 0, 1),
    ),
    "VOI LUT": (RAMP, {"VOILUTSequence": lut(np.arange(3781)[::-1])}, FLIPPED),
    "VOI LUT of 12 bits in 16": (RAMP, {"VOILUTSequence": lut(np.arange(3781), 16)}, SHOWN),
}


@pytest.mark.parametrize("name", DICOMS)
def test_dicom_is_read_as_a_viewer_shows_it(tmp_path, name):
    pixels, elements, shown = DICOMS[name]
    image = read_image(write_dicom(tmp_path / "x.dcm", pixels, **elements))
    tissue = np.ones(image.shape, bool)
    if name.startswith("padding"):
        tissue[:, :8] = False
        assert image[~tissue].max() <= 5
    assert image.shape == shown.shape
    assert np.corrcoef(image[tissue], shown[tissue])[0, 1] > 0.99
    assert np.ptp(image[tissue].astype(int)) >= 200


COLOURS = palette(np.stack([FALLING, FALLING[::-1], FALLING]))
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
REFUSED = {
    "no pixels": (RAMP, {"PixelData": None}, "no PixelData"),
    "no meaning": (RAMP, {"PhotometricInterpretation": None}, "no PhotometricInterpretation"),
    "colour palette": (INDICES, COLOURS, "PALETTE COLOR"),
    "colour": (np.zeros((4, 4, 3), np.uint8), RGB, "PhotometricInterpretation RGB"),
    "frames": (RAMP, {"NumberOfFrames": 2, "PixelData": 2 * RAMP.tobytes()}, "NumberOfFrames 2"),
    "too short": (RAMP, {"PixelData": RAMP.tobytes()[:100]}, "PixelData cannot be decoded"),
    "beyond float32": (RAMP, {"RescaleSlope": "1e300"}, "beyond float32"),
    "only padding": (0 * RAMP, {"PixelPaddingValue": 0}, "nothing but padding"),
    "codec": (
        RAMP,
        {"TransferSyntaxUID": JPEGLossless, "PixelData": encapsulate([b"\xff\xd8\xff\xc3" * 9])},
        "JPEG Lossless.*pip install pylibjpeg",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_single_grey_frame_is_refused(tmp_path, name):
    pixels, elements, why = REFUSED[name]
    path = write_dicom(tmp_path / "odd.dcm", pixels, **elements)
    with pytest.raises(PacxError, match=f"odd.dcm.*{why}"):
        read_image(path)


def test_files_that_inflate_beyond_any_x_ray_are_refused(tmp_path, monkeypatch):
    deflated = {"TransferSyntaxUID": DeflatedExplicitVRLittleEndian}
    path = write_dicom(tmp_path / "odd.dcm", np.tile(RAMP, (4, 4)), **deflated)
    assert np.ptp(read_image(path).astype(int)) >= 200
    monkeypatch.setattr(dicom, "MAX_PIXELS", 40_000)  # 98 kB of pixels
    with pytest.raises(PacxError, match=r"odd\.dcm inflates to more than"):
        read_image(path)
    path = write_dicom(tmp_path / "odd.dcm", np.tile(RAMP, (4, 4)))
    with pytest.raises(PacxError, match=r"odd\.dcm has 192 × 256 pixels"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_every_viewer_does(tmp_path, orientation):
    turns = {1: [], 2: [np.fliplr], 3: [np.rot90] * 2, 4: [np.flipud], 5: [np.transpose],
             6: [np.rot90], 7: [np.rot90, np.rot90, np.transpose], 8: [np.rot90] * 3}  # fmt: skip
    grey = np.round(SHOWN * 255).astype(np.uint8)
    grey[:10, :20] = 255  # tells up from down
    stored = grey
    for turn in turns[orientation]:
        stored = turn(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    assert np.corrcoef(read_image(path).ravel(), grey.ravel())[0, 1] > 0.99


def with_tag(tag, value):
    """Change a TIFF's tag of two bytes that Pillow does not let one set."""

    def change(content):
        at = content.index(pack("<HHI", tag, 3, 1)) + 8
        return content[:at] + pack("<H", value) + content[at + 2 :]

    return change


def png(pixels, kind):
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = {"IHDR": pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)}
    content = b"\x89PNG\r\n\x1a\n"
    for name, chunk in (chunks | {"IDAT": zlib.compress(rows), "IEND": b""}).items():
        body = name.encode() + chunk
        content += pack(">I", len(chunk)) + body + pack(">I", zlib.crc32(body))
    return content


GREY = np.round(SHOWN * 255).astype(np.uint8)
OPAQUE = np.full_like(GREY, 255)
PARTLY = np.where(np.arange(64) < 8, 0, OPAQUE)
LARGE = (RAMP.astype(np.int64) * 1_100_000).astype(np.uint32)  # above what 32 bits hold with a sign
#: Pixels, format, change of the file's bytes, what a viewer shows.
PICTURES = {
    "TIFF, white is 0": (RAMP, "TIFF", with_tag(262, 0), FLIPPED),
    "TIFF, white is 0, 8 bits": (GREY, "TIFF", with_tag(262, 0), FLIPPED),
    "TIFF, white is 0, floats": (SHOWN.astype(np.float32), "TIFF", with_tag(262, 0), FLIPPED),
    "TIFF, 32 bits": (LARGE.view(np.int32), "TIFF", with_tag(339, 1), SHOWN),
    "TIFF, 32 bits with a sign": (LARGE.view(np.int32) // 2, "TIFF", bytes, None),
    "TIFF, large floats": ((SHOWN * 6.8e38 - 3.4e38).astype(np.float32), "TIFF", bytes, SHOWN),
    "16 bits, few values": (RAMP // 1200, "PNG", bytes, RAMP // 1200),
    "opaque": (np.dstack([GREY, GREY, GREY, OPAQUE]), "PNG", bytes, SHOWN),
    "blue film": (np.dstack([GREY // 2, GREY // 2 + 20, GREY // 2 + 90]), "PNG", bytes, SHOWN),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_read_as_a_viewer_shows_it(tmp_path, name):
    pixels, format, change, shown = PICTURES[name]
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, format)
    (tmp_path / "x").write_bytes(change(coded.getvalue()))
    shown = pixels if shown is None else shown
    image = read_image(tmp_path / "x")
    assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.99
    assert np.ptp(image.astype(int)) >= (120 if name == "blue film" else 200)


def test_a_mask_in_which_0_is_white_is_turned_round(tmp_path):
    coded = io.BytesIO()
    Image.fromarray((RAMP > 2000).astype(np.uint16)).save(coded, "TIFF")
    (tmp_path / "x.tif").write_bytes(with_tag(262, 0)(coded.getvalue()))
    assert np.array_equal(read_mask(tmp_path / "x.tif"), RAMP <= 2000)


FALSE_COLOURS = np.dstack([GREY, np.full_like(GREY, 90), 255 - GREY])
#: What is written, and why it is no X-ray.
NO_XRAYS = {
    "one value": (np.full((9, 9), 7, np.uint8), "shows nothing: every pixel is 7"),
    "one value of 16 bits": (np.full((9, 9), 700, np.uint16), "shows nothing: every pixel is 700"),
    "transparent": (np.dstack([GREY, GREY, GREY, PARTLY]), "transparent in parts"),
    "only in its alpha": (np.dstack([0 * GREY, 0 * GREY, 0 * GREY, GREY]), "transparent in parts"),
    "false colours": (FALSE_COLOURS, "false colours"),
    "false colours of a palette": (Image.fromarray(FALSE_COLOURS).quantize(), "false colours"),
    "colour of 16 bits, cut": (png(np.dstack([RAMP] * 3), 2), "upper 8 hold 15 grey values"),
    "grey and alpha, cut": (png(np.dstack([RAMP, 0 * RAMP]), 4), "upper 8 hold 15 grey values"),
    "huge": (Image.new("L", (9000, 8000)), "9000 x 8000 pixels"),
}


@pytest.mark.parametrize("name", NO_XRAYS)
def test_what_would_be_misread_is_refused(tmp_path, name):
    content, why = NO_XRAYS[name]
    if isinstance(content, bytes):
        (tmp_path / "odd.png").write_bytes(content)
    else:
        (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(
            tmp_path / "odd.png"
        )
    with pytest.raises(PacxError, match=f"odd.png.*{why}"):
        read_image(tmp_path / "odd.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_turned_once(tmp_path, orientation, compression):
    """Pillow turns a TIFF of itself, and scrambles one that it maps."""
    turned = {1: GREY, 2: np.fliplr(GREY), 3: np.rot90(GREY, 2), 4: np.flipud(GREY), 5: GREY.T,
              6: np.rot90(GREY, -1), 7: np.rot90(GREY, 2).T, 8: np.rot90(GREY)}  # fmt: skip
    Image.fromarray(GREY).save(
        tmp_path / "x.tif", tiffinfo={274: orientation}, compression=compression
    )
    assert np.array_equal(read_image(tmp_path / "x.tif"), turned[orientation])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "broken link", "loop"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "x.png"
    make = {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: p.symlink_to("/dev/zero"),
            "broken link": lambda p: p.symlink_to("nowhere"),
            "loop": lambda p: p.symlink_to(p)}  # fmt: skip
    make[kind](path)
    for read in (read_image, read_mask):
        with pytest.raises(PacxError, match=r"x\.png is (no file|missing)"):
            read(path)
    with pytest.raises(PacxError, match=r"x\.png is missing or unreadable"):
        load_images(tmp_path, ["x.png"], 8, tmp_path / "cache")


def test_a_suffix_that_is_not_the_format_is_named(tmp_path):
    grey = Image.fromarray(np.zeros((9, 9), np.uint8))
    for name, format in {"WebP": "WEBP", "GIF": "GIF", "JPEG 2000": "JPEG2000"}.items():
        grey.save(tmp_path / "x.png", format)
        with pytest.raises(PacxError, match=f"x.png: this is {name}"):
            read_image(tmp_path / "x.png")
    (tmp_path / "x.png").write_text("<html>")
    with pytest.raises(PacxError, match="this is a web page"):
        read_image(tmp_path / "x.png")


def test_several_pages_are_refused(tmp_path):
    pages = [Image.fromarray(np.full((9, 9), grey, np.uint8)) for grey in (1, 2, 3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(PacxError, match=r"x\.tif holds 3 images"):
        read_image(tmp_path / "x.tif")


def test_a_bright_marker_does_not_squeeze_16_bit_tissue_and_small_masks_stay(tmp_path):
    pixels = with_values(65_535, np.s_[2:6, 2:7])
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.ptp(read_image(tmp_path / "x.png")[10:].astype(int)) >= 200
    Image.fromarray((pixels == 65_535).astype(np.uint16)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").sum() == 20


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("ecg 1\necg.dat 16 1000(0)/mV 16 0 0 0 0 II\n", "no sampling rate"),
        ("ecg 1 -500 1000\necg.dat 16 1000(0)/mV 16 0 0 0 0 II\n", "no sampling rate"),
        ("ecg 1 nan 1000\necg.dat 16 1000(0)/mV 16 0 0 0 0 II\n", "no sampling rate"),
        ("ecg 1 1e-300 1000\necg.dat 16 1000(0)/mV 16 0 0 0 0 II\n", "no sampling rate"),
        ("ecg 1 500 1000\necg.dat 16 0(0)/mV 16 0 0 0 0 II\n", "no gain of signal 0 .II"),
        ("ecg 1 500 1000\necg.dat 16 1e-300(0)/mV 16 0 0 0 0 II\n", "no gain of signal 0 .II"),
        ("ecg 1 500 1000\necg.dat 16 1e300(0)/mV 16 0 0 0 0 II\n", "no gain of signal 0 .II"),
        ("ecg 1 500 1000\necg.dat 16\n", "no gain of signal 0"),
    ],
)
def test_what_wfdb_would_guess_is_refused(tmp_path, header, why):
    (tmp_path / "ecg.hea").write_text(header)
    np.zeros(1000, "<i2").tofile(tmp_path / "ecg.dat")
    with pytest.raises(PacxError, match=f"ecg.hea states {why}"):
        read_ecg(tmp_path / "ecg")


def test_a_part_of_an_ecg_is_not_guessed_either(tmp_path):
    (tmp_path / "ecg.hea").write_text("ecg/2 1 500 1000\nfirst 500\nsecond 500\n")
    for part, gain in (("first", "1000(0)/mV"), ("second", "0(0)/mV")):
        (tmp_path / f"{part}.hea").write_text(
            f"{part} 1 500 500\n{part}.dat 16 {gain} 16 0 0 0 0 I\n"
        )
        np.zeros(500, "<i2").tofile(tmp_path / f"{part}.dat")
    with pytest.raises(PacxError, match=r"second.hea states no gain"):
        read_ecg(tmp_path / "ecg")


def test_a_signal_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "ecg.hea").write_text("ecg 1 500 1000\necg.dat 16 1000(0)/mV 16 0 0 0 0 II\n")
    os.mkfifo(tmp_path / "ecg.dat")
    with pytest.raises(PacxError, match=r"ecg.hea: its signal file ecg.dat is no file"):
        read_ecg(tmp_path / "ecg")
