"""Lab autoencoder, segmenter, distillation."""

import pytest
import torch

from pacx.errors import PacxError
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.lab_autoencoder import LabAutoencoder, corrupt, masked_mse
from pacx.models.segmenter import Segmenter, segmentation_loss


@pytest.fixture
def labs():
    generator = torch.Generator().manual_seed(0)
    percentiles = torch.rand(6, 50, generator=generator)
    return percentiles, (torch.rand(6, 50, generator=generator) > 0.5).float()


def test_unobserved_values_never_matter(labs):
    percentiles, observed = labs
    torch.manual_seed(0)
    model = LabAutoencoder()
    prediction, embedding = model(percentiles, observed)
    for filler in (0.5, float("nan")):
        filled = torch.where(observed == 1, percentiles, torch.tensor(filler))
        again, _ = model(filled, observed)
        assert torch.equal(model.embed(filled, observed), embedding)
        assert torch.equal(again, prediction)
        assert torch.equal(
            masked_mse(again, filled, observed), masked_mse(prediction, percentiles, observed)
        )
    assert not torch.equal(model.embed(percentiles, torch.ones_like(observed)), embedding)


def test_corrupt_hides_the_stated_share_of_observed_labs():
    observed = (torch.rand(2000, 50, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    kept = corrupt(observed, 0.15, torch.Generator().manual_seed(1))
    assert not (kept > observed).any()
    assert 1 - kept.sum() / observed.sum() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(corrupt(observed, 0.0), observed)


def test_corrupt_draws_where_the_generator_is_whatever_holds_the_labs(monkeypatch):
    rand, asked = torch.rand, []

    def spy(*shape, generator=None, device=None):
        asked.append(torch.device(device).type)
        return rand(*shape, generator=generator, device=device)

    monkeypatch.setattr(torch, "rand", spy)
    elsewhere = torch.ones(2, 50, device="meta")
    assert corrupt(elsewhere, 0.15, torch.Generator()).device.type == "meta"
    assert corrupt(elsewhere, 0.15).device.type == "meta"
    assert asked == ["cpu", "meta"]


def test_masked_mse_is_over_observed_labs():
    prediction, target = torch.zeros(1, 50), torch.ones(1, 50)
    observed = torch.zeros(1, 50)
    assert masked_mse(prediction, target, observed) == 0
    observed[0, :10] = 1
    assert masked_mse(prediction, target, observed) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, o: (p[:, :49], o), r"expected \(N, 50\)"),
        (lambda p, o: (p, o[0]), r"expected \(N, 50\)"),
        (lambda p, o: (p, o[:3]), "6 rows and observed 3"),
        (lambda p, o: (p, o * 0.5), "only 1"),
        (lambda p, o: (p * float("nan"), o), "NaN where observed"),
    ],
)
def test_wrong_labs_are_one_clear_error(labs, change, message):
    with pytest.raises(PacxError, match=message):
        LabAutoencoder().embed(*change(*labs))


@pytest.mark.parametrize(
    ("patch", "channels"), [(16, [256, 128, 64, 32, 1]), (8, [256, 128, 64, 1])]
)
def test_segmenter_grows_to_full_resolution(patch, channels):
    model = Segmenter(24, patch)
    widths = [m.out_channels for m in model.decoder if hasattr(m, "out_channels")]
    assert widths == channels
    assert model(torch.randn(2, 16, 24)).shape == (2, 1, 4 * patch, 4 * patch)


def test_segmenter_keeps_the_grid_row_major():
    torch.manual_seed(0)
    model, patches = Segmenter(8, 4), torch.randn(1, 64, 8)
    before = model(patches)
    patches[0, 3] += 1  # row 0, column 3 of 8 x 8
    rows, columns = (model(patches) - before)[0, 0].abs().sum(1), (model(patches) - before)[0, 0]
    assert rows[:8].sum() > 0
    assert rows[8:].sum() == 0  # a 3 x 3 convolution reaches one patch further
    assert columns[:, :8].abs().sum() == columns[:, 20:].abs().sum() == 0


def test_segmenter_refuses_what_it_cannot_decode():
    with pytest.raises(PacxError, match="power of two"):
        Segmenter(8, 14)
    with pytest.raises(PacxError, match="CLS"):
        Segmenter(8, 8)(torch.zeros(1, 17, 8))


def test_a_right_mask_has_a_small_loss():
    logits, masks = torch.full((1, 1, 4, 4), -9.0), torch.zeros(1, 1, 4, 4)
    logits[..., :2, :] = 9
    masks[..., 1:3, :] = 1
    assert segmentation_loss(logits, logits > 0).total < 0.01 < segmentation_loss(logits, masks).bce


def test_a_segmentation_loss_of_16_bit_logits_is_summed_in_32():
    logits = torch.randn(4, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = logits > 1
    for dtype in (torch.float16, torch.bfloat16):
        rounded = logits.to(dtype)
        assert segmentation_loss(rounded, masks) == segmentation_loss(rounded.float(), masks)


WIDTHS = {"ecg": 20, "labs": 10}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    teachers = {m: torch.randn(8, w, generator=generator) for m, w in WIDTHS.items()}
    return torch.randn(8, 12, generator=generator), teachers


@pytest.mark.parametrize("modalities", [("ecg",), ("labs",), ("ecg", "labs")])
def test_absent_modalities_leave_no_trace(batch, modalities):
    cxr, teachers = batch
    heads = DistillationHeads(12, {m: WIDTHS[m] for m in modalities}, shared_width=16)
    loss = DistillationLoss(modalities=modalities)
    terms = loss(heads(cxr, teachers), teachers)
    kinds = ("contrastive", "regression")
    assert set(terms) == {
        *(f"{kind}_{m}" for kind in kinds for m in modalities), *kinds, "total", "logit_scale",
    }  # fmt: skip
    assert {name.split("_")[0] for name, _ in heads.named_children()} == {"cxr", *modalities}
    terms["total"].backward()
    idle = [n for n, p in [*heads.named_parameters(), *loss.named_parameters()] if p.grad is None]
    assert not idle


def test_what_does_not_fit_names_the_modality(batch):
    cxr, teachers = batch
    heads, loss = DistillationHeads(12, WIDTHS, shared_width=16), DistillationLoss()
    projections = heads(cxr, teachers)
    without, wide = {"ecg": teachers["ecg"]}, teachers | {"labs": torch.zeros(8, 11)}
    for given, found in ((without, "none"), (wide, r"the shape \(8, 11\)")):
        said = rf"modality labs: found {found}, expected \(8, 10\)"
        with pytest.raises(PacxError, match=said):
            heads(cxr, given)
        with pytest.raises(PacxError, match=said):
            loss(projections, given)
    with pytest.raises(PacxError, match="heads have no modality eeg"):
        DistillationLoss(modalities=("ecg", "eeg"))(projections, teachers)


def test_regression_matches_direction_only(batch):
    cxr, teachers = batch
    heads, loss = DistillationHeads(12, WIDTHS, shared_width=16), DistillationLoss()
    projections = heads(cxr, teachers)
    perfect = projections._replace(predicted={m: 3 * t for m, t in teachers.items()})
    assert loss(perfect, teachers)["regression"].item() == pytest.approx(0, abs=1e-6)


def test_pairs_in_order_score_best(batch):
    cxr, teachers = batch
    projections = DistillationHeads(12, WIDTHS, shared_width=16).eval()(cxr, teachers)
    aligned = projections._replace(shared=dict.fromkeys(WIDTHS, projections.cxr))
    shifted = projections._replace(shared=dict.fromkeys(WIDTHS, projections.cxr.roll(1, 0)))
    loss = DistillationLoss()
    assert loss(aligned, teachers)["contrastive"] < 1 < loss(shifted, teachers)["contrastive"]


def test_impossible_losses_are_refused():
    with pytest.raises(PacxError, match="modality"):
        DistillationLoss(modalities=())
    with pytest.raises(PacxError, match="temperature"):
        DistillationLoss(temperature=0)
