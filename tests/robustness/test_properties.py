"""What must hold for any input: lead order, percentiles, masking, splits, tables, broken files."""

import io

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from tiny_ecg import DICOM, tagged, write_wfdb

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.data.ecg import read_ecg, reorder
from pacx.data.images import read_image
from pacx.data.splits import split_by_patient
from pacx.data.table import read_csv
from pacx.errors import PacxError
from pacx.models.encoder import build_encoder
from pacx.models.lab_autoencoder import corrupt
from pacx.models.mae import MaskedAutoencoder
from pacx.pairing.files import ITEMS, PERCENTILES, lab_percentiles

quick = settings(max_examples=25, deadline=None, derandomize=True)


@quick
@given(st.permutations(LEADS_ECGFOUNDER), st.permutations(LEADS_ECGFOUNDER))
def test_leads_keep_their_signal_in_any_order(before, after):
    ordered = reorder(tagged(before, 20), before, after)
    np.testing.assert_array_equal(ordered, tagged(after, 20))
    np.testing.assert_array_equal(reorder(ordered, after, before), tagged(before, 20))


@quick
@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=2, max_size=30))
def test_percentiles_rank_as_the_values_do(values):
    pairs = pd.DataFrame(dict.fromkeys(ITEMS, np.array(values)))
    train = np.arange(len(values)) % 3 != 1
    ranks = lab_percentiles(pairs, train)[PERCENTILES[0]].to_numpy()
    known = ~np.isnan(values) & bool((~np.isnan(np.array(values)[train])).any())
    np.testing.assert_array_equal(np.isnan(ranks), ~known)
    assert ((ranks[known] >= 0) & (ranks[known] <= 1)).all()
    order = np.argsort(np.array(values)[known])
    assert (np.diff(ranks[known][order]) >= 0).all()


@quick
@given(st.floats(1 / 16, 15 / 16), st.integers(0, 1000))  # of 16 patches one is kept, one removed
def test_masks_remove_the_stated_share_and_each_patch_once(ratio, seed):
    mae = MaskedAutoencoder(build_encoder(16, 4, 8, 1, 2), 8, 1, 2).eval()
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        out = mae(torch.zeros(2, 3, 16, 16), ratio, noise)
    keep = int(16 * (1 - ratio))
    assert (out.mask.sum(dim=1) == 16 - keep).all()
    assert set(out.mask.unique().tolist()) <= {0.0, 1.0}
    assert out.latent.shape[1] == 1 + keep
    assert torch.equal(out.ids_restore.sort(dim=1).values, torch.arange(16).expand(2, 16))


@quick
@given(st.floats(0, 1), st.integers(0, 1000))
def test_corruption_only_hides_what_was_measured(drop, seed):
    draws = torch.Generator().manual_seed(seed)
    observed = (torch.rand(4, 50, generator=draws) < 0.5).float()
    shown = corrupt(observed, drop, draws)
    assert ((shown == 0) | (shown == 1)).all()
    assert (shown <= observed).all()


@quick
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 5))
def test_no_patient_is_split_and_order_does_not_matter(people, seed):
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    patients = pd.Series(people)
    split = split_by_patient(patients, shares, seed)
    assert split.isin(list(shares)).all()
    assert (split.groupby(patients).nunique() == 1).all()
    pd.testing.assert_series_equal(split_by_patient(patients[::-1], shares, seed)[::-1], split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def read_or_refuse(read, path):
    """What was read; None where it was refused with the one error, which names the file."""
    try:
        return read(path)
    except PacxError as error:
        message = str(error)
    assert path.name in message
    return None


@settings(quick, max_examples=100)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_one_error(folder, content):
    (folder / "table.csv").write_bytes(content)
    table = read_or_refuse(lambda path: read_csv(path, ["a"]), folder / "table.csv")
    assert table is None or "a" in table


def image_bytes(kind):
    grey = np.random.default_rng(0).integers(0, 255, (24, 24), dtype=np.uint8)
    if kind == "dcm":
        with open(get_testdata_file("CT_small.dcm"), "rb") as file:
            return file.read()
    wide = grey.astype(np.uint16) * 200 if kind == "tiff" else grey
    Image.fromarray(wide).save(file := io.BytesIO(), kind)
    return file.getvalue()


def spoil(whole, rng, header):
    """A truncated copy, or one with a few other bytes, most of them in the header."""
    if rng.random() < 0.2:
        return whole[: rng.integers(len(whole))]
    spoilt = bytearray(whole)
    for place in rng.integers(min(header, len(whole)), size=rng.integers(1, 8)):
        spoilt[place] = rng.integers(256)
    return bytes(spoilt)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "bmp", "dcm"])
def test_broken_image_headers(tmp_path, kind):
    whole, rng, path = image_bytes(kind), np.random.default_rng(1), tmp_path / f"x.{kind}"
    path.write_bytes(whole)
    assert read_image(path).ndim == 2
    for _ in range(150):
        path.write_bytes(spoil(whole, rng, 1200 if kind == "dcm" else 200))
        image = read_or_refuse(read_image, path)
        assert image is None or image.dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["wfdb", "dicom"])
def test_broken_ecg_headers(tmp_path, kind):
    if kind == "wfdb":
        path = write_wfdb(tmp_path, tagged(), LEADS_MIMIC).with_suffix(".hea")
        whole = path.read_bytes()
    else:
        dataset = pydicom.dcmread(DICOM)
        del dataset.WaveformSequence[1:]  # the median beat
        path = tmp_path / "x.dcm"
        dataset.save_as(path)
        whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(150):
        path.write_bytes(spoil(whole, rng, 3000))
        ecg = read_or_refuse(read_ecg, path)
        assert ecg is None or len(ecg.signal) == 12
