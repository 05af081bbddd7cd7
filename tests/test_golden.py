"""Side by side with the public reference code: formula inputs in, its recorded outputs expected.

The files come from `tests/golden/` or from the folder in the environment variable PACX_GOLDEN.
"""

import math
import re

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from golden_distillation import (
    distill_in_rank,
    distillation_inputs,
    distillation_terms,
    modalities_of,
)
from golden_formula import (
    FOLDER,
    assert_close,
    assert_stats,
    axes,
    calculate,
    count_of,
    evaluate,
    formula_weights,
    formulas,
    golden_files,
    is_fixed,
    item_of,
    setting,
    summands,
)

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.data.ecg import filter_ecg, preprocess, reorder
from pacx.evaluation.alignment import ridge_alignment
from pacx.evaluation.attention import (
    _cls_row,
    attention_maps,
    attention_rollout,
    upsample,
)
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.ecg_founder import Net1D
from pacx.models.encoder import (
    add_lora,
    build_encoder,
    encode,
    merge_lora,
    trainable_parameters,
)
from pacx.models.lab_autoencoder import LabAutoencoder, masked_mse
from pacx.models.mae import MaskedAutoencoder
from pacx.models.segmenter import Segmenter, segmentation_loss
from pacx.training.segmentation import scores_per_image

ITEMS = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G10")
FILES = golden_files()
#: Of what the reference computes in float32.
FLOAT32 = {"atol": 1e-4, "rtol": 0}


def our_name(name: str) -> str:
    """The one place that maps the reference's names to ours.

    Net1D, lab autoencoder, segmentation decoder, LoRA encoder and heads have the same names. Ours
    keeps the MAE's encoder in a module of its own; the loss's terms are called by what they do.
    """
    terms = {
        "clip_cxr_ecg": "contrastive_ecg",
        "clip_cxr_labs": "contrastive_labs",
        "clip_total": "contrastive",
        "reg_ecg": "regression_ecg",
        "reg_labs": "regression_labs",
        "reg_total": "regression",
    }
    return terms.get(name, name.removeprefix("loss_module."))


def our_mae_name(name: str) -> str:
    return name if name.startswith(("decoder_", "mask_token")) else f"encoder.{name}"


@pytest.fixture(scope="module")
def golden(request):
    return FILES[request.param]


def item(name: str):
    """Every file of an item; none skips."""
    return pytest.mark.parametrize("golden", [*golden_files(name)], indirect=True)


def test_every_file_is_known():
    assert FILES, f"no g*.json in {FOLDER}"
    unknown = sorted({item_of(name) for name in FILES} - set(ITEMS))
    assert not unknown, f"{FOLDER} holds items that no test here checks: {', '.join(unknown)}"


def load_formula(module: torch.nn.Module, golden: dict, rename=our_name) -> torch.nn.Module:
    """Fill a module with the file's weights (float32) and go on in float64, in evaluation mode."""
    expected = {rename(name): tuple(shape) for name, shape, *_ in golden["state"]}
    assert {name: tuple(t.shape) for name, t in module.state_dict().items()} == expected
    weights = {rename(name): w for name, w in formula_weights(golden).items()}
    left_out = set(module.load_state_dict(weights, strict=False).missing_keys)
    assert left_out == set(expected) - set(weights)
    return module.double().eval()


def image_input(golden: dict, n_images: int, size: int) -> torch.Tensor:
    n, c, i, j = axes(n_images, 3, size, size)
    images = evaluate(golden, golden["input"], n=n, c=c, i=i, j=j)
    return torch.from_numpy(images.astype(np.float32)).double()


def encoder_shape(golden: dict, heads: int, prefix: str = "") -> dict[str, int]:
    """Arguments of `build_encoder`, from the shapes in 'state'; heads leave no trace there."""
    shapes = {name.removeprefix(prefix): shape for name, shape, *_ in golden["state"]}
    patch = shapes["patch_embed.proj.weight"][-1]
    grid = math.isqrt(shapes["pos_embed"][1] - 1)
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": shapes["cls_token"][-1],
        "depth": len(blocks),
        "heads": heads,
    }


# ---------------------------------------- ECG teacher
@item("G1")
@torch.inference_mode()
def test_ecg_founder(golden):
    config = dict(golden["config"])
    # In the published configuration these are off, and inner channels are as many as outer ones.
    assert [config.pop(name) for name in ("use_do", "use_bn", "ratio")] == [False, False, 1]
    net = Net1D(**config)
    assert len(net.state_dict()) == golden["n_state"]
    assert sum(p.numel() for p in net.parameters()) == golden["n_params"]
    load_formula(net, golden)

    text = golden["input"]
    b, l, t = axes(*(count_of(text, letter) for letter in "blt"))  # noqa: E741 - the file's letters
    signal = torch.from_numpy(evaluate(golden, text, b=b, l=l, t=t).astype(np.float32))

    stages = []
    taps = [s.register_forward_hook(lambda *a: stages.append(a[2])) for s in net.stage_list]
    features = net.features(signal.double())
    for tap in taps:
        tap.remove()
    logits = net.dense(features)

    expected = golden["expected"]
    assert_close(features, expected["features"])
    for row, stats in zip(features, expected["features_stats"], strict=True):
        assert_stats(row, stats)
    for wanted in expected["stage_outputs"]:
        found = stages[wanted["stage"]].transpose(1, 2)  # channels come last inside the network
        assert list(found.shape) == wanted["shape"]
        assert_stats(found, wanted, what=f"stage {wanted['stage']}")
        assert_close(found[0, 0, :4], wanted["first4"])
    assert_close(logits[:, :10], expected["logits_first10"])
    for row, stats in zip(logits, expected["logits_stats"], strict=True):
        assert_stats(row, stats)

    # The batch-norm tensors of the checkpoint must not matter.
    state = net.state_dict()
    for name in golden["unused_in_forward"]["names"]:
        state[name].copy_(torch.full_like(state[name], 7))
    assert torch.equal(net.features(signal.double()), features)
    single = net.float().features(signal)
    assert_close(single, expected["features"], {"atol": 3e-5, "rtol": 3e-5})


# ---------------------------------------- ECG preprocessing
@item("G2")
def test_ecg_preprocessing(golden):
    hz = golden["fs"]
    mimic = raw_ecg(golden, hz)
    order = golden["lead_reorder"]
    assert (order["mimic"], order["ecgfounder"]) == ([*LEADS_MIMIC], [*LEADS_ECGFOUNDER])
    signal = reorder(mimic, LEADS_MIMIC, LEADS_ECGFOUNDER)
    np.testing.assert_array_equal(signal, mimic[order["index_into_mimic"]])

    # Across builds of SciPy the recursive form of the band-pass scatters by 3e-6.
    limits = {"atol": 2e-5, "rtol": 1e-6}
    expected = golden["expected_float64"]
    at = expected["indices"]
    rows = {lead: LEADS_ECGFOUNDER.index(lead) for lead in expected["zscored"]}
    assert sorted(rows.values()) == sorted(expected["leads_in_ecgfounder_order"])
    filtered, right = filter_ecg(signal, hz), preprocess(signal, hz)
    assert right.dtype == np.float64
    for lead, row in rows.items():
        assert_close(filtered[row, at], expected["filtered_before_zscore"][lead], limits, lead)
        assert_close(right[row, at], expected["zscored"][lead], limits, lead)
    assert_close(filtered.mean(), expected["filtered_mean"], limits)
    assert_close(filtered.std(), expected["filtered_std"], limits)
    assert_close(right.std(axis=1), expected["zscored_std_per_lead"], limits)
    assert_close(right.mean(axis=1), expected["zscored_mean_per_lead"], limits)
    assert_close(np.linalg.norm(right), expected["zscored_l2"])

    # As Symile-MIMIC stores it: scaled to [-1, 1] over the whole record, float32.
    scaled = 2 * (signal - signal.min()) / (signal.max() - signal.min()) - 1
    z32 = preprocess(scaled.astype(np.float32), hz)
    assert z32.dtype == np.float32
    expected32 = golden["expected_pacx_float32"]
    for lead, values in expected32["zscored"].items():
        assert_close(z32[LEADS_ECGFOUNDER.index(lead), at], values, FLOAT32, lead)
    assert_close(z32.std(axis=1), expected32["std_per_lead"], FLOAT32)

    for key, values in golden.get("nan_case", {}).items():
        if match := re.fullmatch(r"zscored_(\w+)", key):
            first, last = re.search(
                r"(\d+) *\.\. *(\d+)", golden["nan_case"]["description"]
            ).groups()
            broken = mimic.copy()
            broken[LEADS_MIMIC.index(match[1]), int(first) : int(last) + 1] = np.nan
            z = preprocess(reorder(broken, LEADS_MIMIC, LEADS_ECGFOUNDER), hz)
            assert_close(z[LEADS_ECGFOUNDER.index(match[1]), at], values, limits)

    # Without the reordering a row is another lead wherever the two orders differ.
    unordered = preprocess(mimic, hz)
    for values in golden.get("wrong_variant_without_reorder", {}).values():
        row = np.abs(unordered[:, at] - values).max(axis=1).argmin()
        assert_close(unordered[row, at], values, limits)
        is_another_lead = LEADS_MIMIC[row] != LEADS_ECGFOUNDER[row]
        assert (np.abs(right[row, at] - values).max() > 0.01) == is_another_lead


def raw_ecg(golden: dict, hz: int) -> np.ndarray:
    """The file's made-up recording (12, T), mV: a sum of terms, those with beats k in them over k.

    s: seconds; c: second of a beat.
    """
    text = golden["input"]
    k, l, t = axes(*(count_of(text, letter) for letter in "klt"))  # noqa: E741
    found = formulas(golden, text, {*"kltsc"})
    (beat,) = (node for name, node in found if name == "c")
    where = {"l": l, "t": t, "s": t / hz, "c": calculate(golden, beat, k=k)}
    return sum(
        calculate(golden, term, **where).sum(axis=0)
        for name, node in found
        if name not in ("s", "c")
        for term in summands(node)
    )


# ---------------------------------------- masked autoencoder
@pytest.fixture(scope="module")
def mae(golden):
    """The reference's ViT-B/16 with its 512 x 8 decoder, formula images and noise, float64."""
    shapes = {name: shape for name, shape, *_ in golden["state"]}
    decoder_width = shapes["mask_token"][-1]
    # Heads leave no trace in shapes: 64 channels a head in ViT-B, 32 in the public decoder.
    shape = encoder_shape(golden, heads=shapes["cls_token"][-1] // 64)
    depth = len({name.split(".")[1] for name in shapes if name.startswith("decoder_blocks.")})
    model = MaskedAutoencoder(build_encoder(**shape), decoder_width, depth, decoder_width // 32)
    load_formula(model, golden, our_mae_name)
    n = len(golden["expected"]["mask_sum"])
    i, j = axes(n, shapes["pos_embed"][1] - 1)
    noise = evaluate(golden, golden["noise"], n=i, l=j)
    return (
        model,
        image_input(golden, n, shape["image_size"]),
        torch.from_numpy(noise.astype(np.float32)),
    )


@item("G3")
def test_mae_state(golden, mae):
    model, *_ = mae
    assert len(model.state_dict()) == golden["n_state"]
    assert trainable_parameters(model) == golden["n_params_trainable"]
    assert sum(p.numel() for p in model.parameters()) == golden["n_params_total"]
    frozen = {our_mae_name(name) for name, _, *kind in golden["state"] if is_fixed(kind)}
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen

    limits = {"atol": 1e-7, "rtol": 1e-6}
    check, table = golden["pos_embed_check"], model.encoder.pos_embed[0]
    for key, value in check.items():
        if match := re.fullmatch(r"pos_embed_row(\d+)(_cols)?", key):
            row = table[int(match[1])]
            columns = [int(c) for c in value] if match[2] else range(len(value))
            wanted = list(value.values()) if match[2] else value
            assert_close(row[list(columns)], wanted, limits, key)
    assert_close(table.norm(), check["l2"], limits)
    assert_close(model.decoder_pos_embed.norm(), check["decoder_l2"], limits)
    assert not table[0].any()


@item("G3")
@torch.inference_mode()
def test_mae_forward(golden, mae):
    model, images, noise = mae
    expected = golden["expected"]
    out = model(images, golden["mask_ratio"], noise)

    keep = golden["len_keep"]
    assert out.latent.shape[1] == 1 + keep
    kept_in_order = out.ids_restore.argsort(dim=1)[:, :keep]
    assert kept_in_order.tolist() == expected["kept_indices_in_order"]
    assert out.mask.sum(dim=1).tolist() == expected["mask_sum"]
    kept = [(row == 0).nonzero().ravel().tolist() for row in out.mask]
    assert kept == expected["mask_kept_positions"]
    assert out.ids_restore[:, :10].tolist() == expected["ids_restore_first10"]

    for name, values in (("latent", out.latent), ("pred", out.prediction)):
        wanted = expected[name]
        assert list(values.shape) == wanted["shape"]
        assert_stats(values, wanted["stats"], what=name)
        for key, numbers in wanted.items():
            if match := re.fullmatch(r"(cls|token|patch)(\d*)", key):
                row = values[:, int(match[2] or 0)][:, wanted["dims"]]
                assert_close(row, numbers, what=key)

    assert_close(out.loss, expected["loss_norm_pix_false"])
    model.norm_pix_loss = True
    loss = model(images, golden["mask_ratio"], noise).loss
    model.norm_pix_loss = False
    assert_close(loss, expected["loss_norm_pix_true"])

    for key, other in golden.items():
        if match := re.fullmatch(r"mask_ratio_(\d+)_(\d+)", key):
            out = model(images, float(f"{match[1]}.{match[2]}"), noise)
            assert out.latent.shape[1] == 1 + other["len_keep"]
            assert_close(out.loss, other["loss"])


@item("G3")
@torch.inference_mode()
def test_mae_patches_and_whole_images(golden, mae):
    model, images, _ = mae
    expected = golden["expected"]
    for key, values in expected.items():
        if match := re.fullmatch(r"patchify_patch(\d+)_dims", key):
            patch = model.patchify(images)[0, int(match[1])]
            assert_close(patch[[int(d) for d in values]], list(values.values()))
    assert torch.equal(model.unpatchify(model.patchify(images)), images)

    wanted = expected["encode_cls_no_mask"]
    cls, patches = encode(model.encoder, images)
    assert patches.shape[1] == model.encoder.patch_embed.num_patches
    assert_stats(cls, wanted["stats"])
    assert_close(cls[:, wanted["dims"]], wanted["values"])
    assert_close(cls[0, :64], wanted["first64_image0"])


@item("G3")
@torch.inference_mode()
def test_mae_layer_norm_eps(golden, mae):
    model, images, _ = mae
    probe = golden["layernorm_eps_probe"]

    def normed(name: str) -> torch.Tensor:
        norm = model.get_submodule(our_mae_name(name))
        j = np.arange(norm.normalized_shape[0])
        x = evaluate(golden, probe["input"], j=j).astype(np.float32)
        return norm(torch.from_numpy(x).double()[None, None])[0, 0, probe["dims"]]

    for name, expected in probe["eps_1e_6"].items():
        assert_close(normed(name), expected, what=name)
    for key, expected in probe.items():
        if match := re.fullmatch(r"wrong_(\w+)_with_eps_(\d+)e_(\d+)_first(\d+)", key):
            name, number, power, n = match.groups()
            norm = model.get_submodule(our_mae_name(name))
            assert np.abs(normed(name)[: int(n)].numpy() - expected).max() > 1e-3
            eps, norm.eps = norm.eps, float(f"{number}e-{power}")
            assert_close(normed(name)[: int(n)], expected, what=key)
            norm.eps = eps

    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.LayerNorm)]
    eps = [norm.eps for norm in norms]
    for key, expected in golden.get("eps_effect_on_encoder", {}).items():
        if match := re.fullmatch(r"cls_eps_(\d+)e_(\d+)_first(\d+)", key):
            number, power, n = match.groups()
            for norm in norms:
                norm.eps = float(f"{number}e-{power}")
            cls = encode(model.encoder, images[:1])[0][0]
            assert_close(cls[: int(n)], expected, what=key)
    for norm, before in zip(norms, eps, strict=True):
        norm.eps = before


# ---------------------------------------- distillation
#: The files print ten digits of terms and nine of gradients, which are small.
TERMS, GRADIENTS = {"atol": 1e-10, "rtol": 1e-9}, {"atol": 1e-11, "rtol": 2e-8}


def assert_terms(terms: dict, expected: dict) -> None:
    assert set(terms) == {our_name(name) for name in expected}
    for name, value in expected.items():
        assert_close(terms[our_name(name)], value, TERMS, name)


@item("G4")
def test_distillation_loss(golden):
    x, expected = distillation_inputs(golden), golden["expected"]
    variants = [
        name for name, value in expected.items() if isinstance(value, dict) and "total" in value
    ]
    assert "both" in variants
    for variant in variants:
        found, _ = distillation_terms(golden, x, modalities_of(variant))
        assert_terms(found, expected[variant])
    for key, value in expected.items():
        if match := re.match(r"label_smoothing_([\d.]+)_total", key):
            terms, _ = distillation_terms(golden, x, label_smoothing=float(match[1]))
        elif match := re.match(r"temperature_([\d.]+)_clamped_at_([\d.]+)", key):
            terms, _ = distillation_terms(golden, x, temperature=float(match[1]))
            assert float(terms["logit_scale"]) == float(match[2])
        else:
            continue
        assert_close(terms["total"], value, TERMS, key)


@item("G4")
def test_distillation_gradients(golden):
    x, expected = distillation_inputs(golden), golden["expected"]["grad_both"]
    for name in ("cxr", "ecg", "labs"):
        x[f"{name}_shared"].requires_grad_(True)
    terms, loss = distillation_terms(golden, x)
    terms["total"].backward()
    for key, value in expected.items():
        if key == "logit_scale":
            assert_close(loss.logit_scale.grad, value, GRADIENTS, key)
        elif match := re.fullmatch(r"(\w+)_first(\d+)_row(\d+)", key):
            name, n, row = match.groups()
            assert_close(x[f"{name}_shared"].grad[int(row), : int(n)], value, GRADIENTS, key)
        elif match := re.fullmatch(r"(\w+)_l2", key):
            assert_close(x[f"{match[1]}_shared"].grad.norm(), value, GRADIENTS, key)


@item("G4")
def test_distillation_two_processes(golden, tmp_path):
    expected = golden["two_process"]
    keys = [match for key in expected if (match := re.fullmatch(r"(?:(\w+)_)?rank(\d+)", key))]
    variants = {match[0]: match[1] or "both" for match in keys}
    world = 1 + max(int(match[2]) for match in keys)
    arguments = world, str(tmp_path), golden, sorted({*variants.values(), "both"})
    mp.spawn(distill_in_rank, arguments, nprocs=world)
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(world)]
    for match in keys:
        assert_terms(ranks[int(match[2])][variants[match[0]]], expected[match[0]])
    for result in ranks:
        gradient = result["both_gradient"]
        assert_close(gradient.norm(), expected["grad_wrt_t"]["l2"], GRADIENTS)
        assert_close(gradient[:4], expected["grad_wrt_t"]["first4"], GRADIENTS)
    mean = np.mean([result["both"]["total"] for result in ranks])
    assert_close(mean, golden["expected"]["both"]["total"], TERMS)

    # With the negatives of its own process only, a rank would find another, lower loss.
    x = distillation_inputs(golden)
    local = len(x["cxr_shared"]) // world
    for r, result in enumerate(ranks):
        rows = slice(r * local, (r + 1) * local)
        wrong = distillation_terms(golden, x, rows=rows)[0]["contrastive"]
        assert_close(wrong, expected["wrong_local_negatives_clip_total"][f"rank{r}"], TERMS)
        assert result["both"]["contrastive"] > wrong.item() + 0.01


# ---------------------------------------- alignment
@item("G5")
def test_alignment(golden):
    inputs, expected = golden["inputs"], golden["expected"]
    w, noise = evaluate(golden, inputs["W"]), evaluate(golden, inputs["N"])
    n, d = axes(len(noise), len(w))
    x = evaluate(golden, inputs["X"], n=n, d=d)
    y = evaluate(golden, inputs["Y"], X=x, W=w, N=noise).astype(np.float32)
    x = x.astype(np.float32)
    n_train = len(noise) - len(expected["rank_of_own_target"])
    train, test = slice(n_train), slice(n_train, None)
    alpha = setting(str(golden["method"]), "alpha")
    found = ridge_alignment(x[train], y[train], x[test], y[test], alpha)

    for ours, theirs in (
        ("r2", "r2"),
        ("cosine_raw", "cosine_raw"),
        ("cosine_centred", "cosine_centred"),
        ("random_raw", "random_pair_raw"),
        ("random_centred", "random_pair_centred"),
    ):
        assert_close(getattr(found, ours), expected[theirs], FLOAT32, ours)
    recall = {str(k): v for k, v in found.recall.items()}
    recall |= {k: (found.ranks <= int(k)).mean() for k in expected["recall"]}
    assert {k: recall[k] for k in expected["recall"]} == expected["recall"]
    assert (found.ranks - 1).tolist() == expected["rank_of_own_target"]  # the file counts from 0
    assert_close(found.prediction[:2, :6], expected["y_pred_rows0_1_first6"], FLOAT32)
    assert_close(np.linalg.norm(found.prediction), expected["y_pred_l2"], {"atol": 0, "rtol": 1e-5})


# ---------------------------------------- attention rollout
@item("G6")
@torch.inference_mode()
def test_attention_rollout(golden):
    limits, check = {"atol": 1e-8, "rtol": 1e-8}, golden["attention_check"]
    heads = len(check["block0_head_cls_row_first5"])
    encoder = load_formula(build_encoder(**encoder_shape(golden, heads)), golden)
    images = image_input(golden, len(check["features_first8"]), encoder.patch_embed.img_size[0])
    maps = attention_maps(encoder, images)
    assert_close(maps[0, 0, :, 0, :5], check["block0_head_cls_row_first5"], limits)
    assert_close(encoder(images)[:, :8], check["features_first8"], limits)

    for key, expected in golden["expected"].items():
        fusion, start = re.search(r"head_fusion=(\w+)", key)[1], int(setting(key, "start_layer"))
        layers = maps[:, start:]
        if fusion == "max":
            layers = layers.amax(dim=2, keepdim=True)
        rollout = attention_rollout(layers)
        (grid,) = (v for k, v in expected.items() if k.startswith("cls_to_patch"))
        assert_close(rollout, grid, limits, key)
        whole_row = _cls_row(layers).sum(dim=1)
        assert_close(whole_row, expected["row_sum_of_joint_cls"], limits, key)

        ((name, before),) = ((k, v) for k, v in expected.items() if k.startswith("upsampled"))
        size = tuple(int(n) for n in re.search(r"(\d+)x(\d+)", name).groups())
        large = upsample(rollout, size)
        rows, columns = zip(*before["px"], strict=True)
        assert_stats(large, before["stats"], limits, key)
        assert_close(large[:, rows, columns], before["values"], limits, key)


# ---------------------------------------- lab autoencoder
@item("G7")
@torch.inference_mode()
def test_lab_autoencoder(golden):
    shapes = dict(golden["state"])
    width, hidden = shapes["encoder.3.weight"]
    n_labs = shapes["decoder.2.weight"][0]
    model = LabAutoencoder(n_labs, hidden, width)
    assert sum(p.numel() for p in model.parameters()) == golden["n_params"]
    load_formula(model, golden)

    inputs = golden["inputs"]
    p = evaluate(golden, inputs["x"])
    observed = evaluate(golden, inputs["mask"]).astype(int)
    for row, count in enumerate(golden["mask_row_sums"]):
        if count in (0, n_labs):  # rows that the file fills or empties after the formula
            observed[row] = count > 0
    mean = evaluate(golden, inputs["means"], size=n_labs)
    raw = evaluate(golden, inputs["raw"], m=observed, p=p, mu=mean)
    dropped = evaluate(golden, inputs["drop"], m=observed)
    assert observed.sum(axis=1).tolist() == golden["mask_row_sums"]
    assert dropped.sum(axis=1).tolist() == golden["drop_row_sums"]

    raw, observed, kept, dropped = (
        torch.from_numpy(np.asarray(a, np.float32)).double()
        for a in (raw, observed, observed * ~dropped, dropped)
    )

    def check(latent, prediction, expected):
        assert_close(latent[:, :8], expected["latent_first8"])
        assert_close(latent.norm(dim=1), expected["latent_l2"])
        assert_close(prediction[:, :6], expected["recon_first6"])
        assert_close(prediction.mean(dim=1), expected["recon_mean"])

    expected = golden["expected"]
    prediction, latent = model(raw, observed)  # ours multiplies by `observed` itself
    check(latent, prediction, expected["zeroed"])
    assert_close(masked_mse(prediction, raw, observed), expected["zeroed"]["masked_mse"])
    assert torch.equal(latent, model.embed(raw * observed, observed))

    case = expected["training_corrupted"]
    prediction, corrupted = model(raw, kept)
    check(corrupted, prediction, case)
    assert_close(masked_mse(prediction, raw, observed), case["masked_mse"])
    assert_close(masked_mse(prediction, raw, dropped), case["mse_on_dropped_only"])

    # The public extraction feeds the training mean where nothing was measured: another embedding.
    case = expected["inference_raw_meanimputed"]
    unmasked = model.encoder(torch.cat([raw, observed], dim=1))
    prediction = model.decoder(unmasked)
    check(unmasked, prediction, case)
    assert_close(masked_mse(prediction, raw, observed), case["masked_mse_to_raw"])
    gap = (unmasked - latent).norm(dim=1)
    assert_close(gap, golden["latent_gap_inference_vs_zeroed_l2"])


# ---------------------------------------- segmentation
@item("G8")
@torch.inference_mode()
def test_segmentation(golden):
    tokens = evaluate(golden, golden["input"])
    grid = golden["layers"][0][1][-1]
    size = golden["expected"]["shape"][-1]
    model = load_formula(Segmenter(tokens.shape[-1], size // grid), golden)
    seen = []
    taps = [m.register_forward_hook(lambda *a: seen.append(a[2].clone())) for m in model.decoder]
    logits = model(torch.from_numpy(tokens.astype(np.float32)).double())
    for tap in taps:
        tap.remove()

    expected = golden["expected"]
    for layer, found, (kind, shape, stats) in zip(
        model.decoder, seen, golden["layers"], strict=True
    ):
        assert (type(layer).__name__, list(found.shape)) == (kind, shape)
        assert_stats(found, stats, what=kind)
    assert list(logits.shape) == expected["shape"]
    assert_stats(logits, expected["stats"])
    image = logits[0, 0]
    for key, value in expected.items():
        if match := re.fullmatch(r"corner_(\d+)x(\d+)", key):
            assert_close(image[: int(match[1]), : int(match[2])], value)
        elif match := re.fullmatch(r"row(\d+)_cols", key):
            row = image[int(match[1]), [int(c) for c in value]]
            assert_close(row, list(value.values()), what=key)
        elif match := re.fullmatch(r"block_means_row(\d+)", key):
            block = size // len(value)
            band = image[int(match[1]) * block : (int(match[1]) + 1) * block]
            assert_close(band.reshape(block, -1, block).mean(dim=(0, 2)), value, what=key)
    assert_close((image > 0).double().mean(), expected["positive_fraction"])

    wanted = golden["loss_and_metrics"]
    i, j = axes(size, size)
    mask = torch.from_numpy(evaluate(golden, wanted["mask"], i=i, j=j) > 0)[None, None]
    loss = segmentation_loss(logits, mask)
    scores = scores_per_image(logits[:, 0].numpy() > 0, mask[:, 0].numpy())
    for found, name in (
        (loss.total, "loss"),
        (loss.bce, "bce"),
        (loss.dice, "dice_loss"),
        (scores["Dice"][0], "dice_score"),
        (scores["IoU"][0], "iou"),
    ):
        assert_close(found, wanted[name], what=name)


# ---------------------------------------- LoRA
@item("G10")
@torch.inference_mode()
def test_lora_outputs_and_merge(golden):
    heads, alpha = (int(setting(golden["model"], name)) for name in ("num_heads", "alpha"))
    rank = next(shape[0] for name, shape, *_ in golden["state"] if ".lora_A." in name)
    shape = encoder_shape(golden, heads, prefix="base_model.model.")
    model = load_formula(add_lora(build_encoder(**shape), rank, alpha), golden)
    expected = golden["expected"]
    images = image_input(golden, len(expected["cls_with_adapters"]), shape["image_size"])
    with_adapters, _ = encode(model, images)
    assert_close(with_adapters, expected["cls_with_adapters"])
    with model.disable_adapter():
        without, _ = encode(model, images)
    assert_close(without[:, :8], expected["cls_adapters_disabled_first8"])

    merged = merge_lora(model)
    for key, value in expected.items():
        if match := re.fullmatch(r"merged_(qkv|fc1|fc2)_?(\d+)_row(\d+)_first(\d+)", key):
            layer, block, row, n = match.groups()
            part = "attn" if layer == "qkv" else "mlp"
            weight = merged.get_submodule(f"blocks.{block}.{part}.{layer}").weight
            assert_close(weight[int(row), : int(n)], value, what=key)
    assert_close(encode(merged, images)[0], with_adapters.numpy(), {"atol": 1e-9, "rtol": 0})


@item("G10")
def test_lora_counts_and_heads(golden):
    full = golden["full_size_vit_b16"]
    shapes = {our_name(name): tuple(shape) for name, shape in full["head_state"]}
    cxr_width = shapes["cxr_to_shared.mlp.1.weight"][1]
    with torch.device("meta"):
        # ViT-B/16 at 224 px: 12 blocks, 12 heads.
        shape = (224, 16, cxr_width, 12, 12)
        final = add_lora(build_encoder(*shape), norms="final")
        every = add_lora(build_encoder(*shape), norms="all")
    assert trainable_parameters(final) == full["encoder_trainable"]
    assert sum(p.numel() for p in final.parameters()) == full["encoder_total"]
    free = {name: p.numel() for name, p in final.named_parameters() if p.requires_grad}
    assert sum(n for name, n in free.items() if ".lora_" in name) == full["lora_trainable"]
    assert [name for name in free if ".lora_" not in name] == full["trainable_norm_params"]
    assert trainable_parameters(every) == full["if_all_norms_trainable"]

    widths = {m: shapes[f"cxr_to_{m}.mlp.1.weight"][0] for m in ("ecg", "labs")}
    heads = DistillationHeads(cxr_width, widths, shapes["cxr_to_shared.mlp.1.weight"][0])
    state = heads.state_dict() | DistillationLoss().state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == shapes
    for name, count in full["heads"].items():
        assert trainable_parameters(heads.get_submodule(name)) == count
