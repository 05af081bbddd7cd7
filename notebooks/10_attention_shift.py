# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention shift
#
# Does the distilled encoder look at the heart? Measured on patients chosen by a rule, not on the
# prettiest ones.

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a .yaml file
runs = "runs"  # folder that holds all runs

# %% tags=["remove-input"]
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How attention {term}`rollout` traces what the {term}`CLS token` draws from.
# - Why cases must be chosen by a rule, wins and losses alike.
# - How much of the rollout lies on heart, lungs, bones and devices, with exact masks.
# - What integrated gradients and occlusion say of a probe's decision.
# - How to test a map: random weights, deletion and insertion.
# - Why a shift of attention is no proof that physiology was learned.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`ViT`, patches, attention | the maps come from its layers | [chapter 02](02_cxr_mae) |
# | shuffled pairs, untrained teachers | the same controls | [chapter 09](09_components) |
# | paired intervals | every difference has one | [chapter 06](06_clinical_transfer) |

# %%
from pacx.training.pipeline import train_encoders

models = ["random", "mae", "pacx", "pacx-shuffled", "pacx-untrained"]
train_encoders(run, *models)

# %% [markdown]
# ## Rollout
#
# A layer's {term}`attention` $A_\ell$ says how much each token takes from every token, itself included,
# averaged over the heads. The residual path lets every token keep itself, hence the identity $I$. Rows
# are scaled to sum to one, and the $n$ layers are multiplied:
#
# $$\Pi = \tilde A_n \tilde A_{n-1} \cdots \tilde A_1, \qquad
# \tilde A_\ell = \operatorname{rownorm}(A_\ell + I).$$
#
# The row of the CLS token, without its own entry, is a map over the patches: $\pi_l$. In the code,
# $\tilde A_\ell$ is layer $\ell$ of `layers`, and `row` is that one row of $\Pi$: it is carried from the
# last layer down to the first, so that no whole matrix has to be multiplied.

# %% tags=["remove-input"]
from pacx.evaluation import attention
from pacx.figures.source import show_source

show_source(attention.attention_rollout, attention._cls_row)

# %% [markdown]
# ## A rule, fixed before looking
#
# The paper shows cases that PaCX-MAE gets right and MAE wrong. Here is the full rule. The task is dilation
# of the left ventricle, because the silhouette of the heart should decide it. For each encoder the
# {term}`converged probe` of [chapter 06](06_clinical_transfer), on its CLS tokens and all training labels,
# ranks the test patients; it calls the same share of them dilated as in training. *Wins* are the first
# test patients, in the order of the file, that PaCX-MAE gets right and MAE wrong. *Losses* are the first
# with the roles exchanged. Both are shown alike. Where the encoders never disagree, the first test
# patients stand in; that was added after a run of the `smoke` profile had left no case to show. At first
# the probe was scikit-learn's logistic regression on raw features with a fixed penalty; the converged
# probe took its place in the whole book.
#
# The CLS token it is throughout, since rollout and attribution are maps of what that token takes from the
# patches. The mean of the patches would need other maps; how well it decides the same task stands beside
# it in the table.
#
# These cases are pictures. Rollout is *measured* on all test patients. What is slow is measured on
# the first of them in the order of the file, the same for every encoder and method; how many was
# set by the time it takes, not by a result.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display

from pacx.data.images import load_images, normalise
from pacx.evaluation.attention import cases_by_rule, upsample
from pacx.evaluation.features import extract_features, extract_rollouts, images_of
from pacx.evaluation.transfer import compare_probes, open_benchmark, train_probes
from pacx.figures.tables import POOLING_NAMES, folded, in_words, say, show
from pacx.training.encoders import encoder_of

size, task, compared = run.profile.vit.image_size, "dilation", ("mae", "pacx")
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    train_truth, truth = (phantoms.split(split)[task].to_numpy() for split in ("train", "test"))
    images = images_of(run, phantoms, "test")
    label = phantoms.labels.index(task)
    probes, right = {}, {}
    for model in compared:
        probes[model] = train_probes(run, phantoms, model)
        cls = extract_features(run, model, images).cls
        score = probes[model].probabilities(cls)[0, :, label]
        right[model] = (score > np.quantile(score, 1 - train_truth.mean())) == truth
    chosen = cases_by_rule(right["mae"], right["pacx"])
    cases = chosen["case"].to_numpy()
    state_of = np.where(truth == 1, "dilated", "not dilated")
    titles = [f"{row.kind}, case {row.case}, {state_of[row.case]}" for row in chosen.itertuples()]
    wins, losses = (right["pacx"] & ~right["mae"]).sum(), (right["mae"] & ~right["pacx"]).sum()
    counts = {"wins": wins, "losses": losses, "test patients": len(truth)}
    display(show(pd.DataFrame([counts])))
    reads = [
        compare_probes(run, phantoms, compared, tasks=[task], pooling=pooling)
        for pooling in POOLING_NAMES
    ]
    display(show(in_words(pd.concat(reads, ignore_index=True), "task", "pooling")))
else:
    # Nobody knows the truth or the organs' masks here: the first test patients, and no rule.
    benchmark = open_benchmark(run, run.profile.benchmarks[0])
    images = np.array(images_of(run, benchmark, "test")[:6])
    cases = np.arange(len(images))
    titles = [f"case {case}" for case in cases]
    say("Real patients have no exact masks, so nothing is measured in this run.")

# %%
rollouts = {model: np.array(extract_rollouts(run, model, images)) for model in models}

# %% mystnb={"image": {"alt": "Rows of test phantoms, on phantoms at most three wins, then at most three losses: the X-ray, the rollout of MAE, the rollout of PaCX-MAE, and their difference, red where PaCX attends more."}} tags=["hide-input"]
from pacx.book.privacy import declare
from pacx.figures.attention import mean_difference, overlays
from pacx.figures.style import name_of

maps = {
    name_of(model): upsample(torch.from_numpy(rollouts[model][cases]), size).numpy()
    for model in compared
}
shown = "phantom-truth" if run.is_phantom else benchmark.name
figure = declare(run, overlays(images[cases], maps, titles), shown)

# %% [markdown]
# The same cases, from one encoder's rollout to the other's: what moves is the difference.

# %% tags=["hide-input"]
from pacx.figures.attention import fades
from pacx.figures.interactive import image_slider

way = np.linspace(0, 1, 11)
image_slider(
    fades(images[cases], *maps.values(), steps=len(way)),
    [f"{1 - share:.0%} MAE, {share:.0%} PaCX-MAE" for share in way],
    slider="From MAE to PaCX-MAE",
    alt="The cases with the rollout over each X-ray, on the way from MAE's to PaCX-MAE's.",
    caption=f"Brighter = more attention; one scale for both ends. Row by row: {'; '.join(titles)}.",
)

# %% [markdown]
# Single cases invite stories. The mean difference over *all* test patients does not choose:

# %% mystnb={"image": {"alt": "Mean difference of the rollout, PaCX-MAE minus MAE, over all test phantoms, with the mean outline of heart and lungs."}} tags=["hide-input"]
from pacx.evaluation.attention import regions_of, shares_by_region

if run.is_phantom:
    regions = regions_of(run, phantoms, "test")
    change = (rollouts["pacx"] - rollouts["mae"]).mean(axis=0)
    change = upsample(torch.from_numpy(change)[None], size)[0].numpy()
    outlines = {region: regions[region].mean(axis=0) for region in ("heart", "lungs")}
    _ = mean_difference(change, outlines, "mean difference in rollout, PaCX-MAE minus MAE")

# %% [markdown]
# ## How much lies where
#
# The masks of a phantom are exact. For each patient, the share of the rollout that falls inside a
# mask:
#
# $$\text{share} = \sum_l \pi_l\, c_l \Big/ \sum_l \pi_l ,$$
#
# with $c_l$ how much of patch $l$ the mask covers, in [0, 1]. Masks overlap (ribs
# cross the lungs), so the shares need not sum to one. A map without any preference scores the
# mask's *area*, the last column.

# %%
from pacx.evaluation.statistics import (
    Estimate,
    bootstrap_weights,
    difference_of,
    mean_over_cases,
    verdict,
)
from pacx.figures.results import dots, forest

if run.is_phantom:
    patients = phantoms.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    facts = {"dataset": phantoms.name, "task": task}
    table = shares_by_region(rollouts, regions, weights, **facts, method="rollout")
    in_regions = in_words(table, "region").assign(area=table["area"])
    display(show(in_regions[table["model"].isin(compared)]))
    display(folded(show(in_regions), "The same for all encoders"))

# %% mystnb={"image": {"alt": "Share of the rollout on heart, lungs, bones, devices and outside the body for five encoders, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = dots(table, rows="region", x_label="share of the rollout")

# %% mystnb={"image": {"alt": "Forest plot of the change of the rollout share from the MAE in each region for PaCX-MAE and the controls, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    changed = table[~table["model"].isin(["mae", "random"])]
    _ = forest(changed, rows="region", x_label="difference in share, model minus MAE")

# %% [markdown]
# ## Did attention move to the heart?
#
# Paired over many patients, even a shift too small to matter is "above zero". So a smallest shift
# that counts is set: a twentieth of the heart's area. The whole interval must lie beyond it. This
# limit was not part of the original rule. It was chosen after a run of the `smoke` profile had
# called a shift of nearly nothing "above zero". The same limit is held against the book's evidence.
#
# The table puts PaCX-MAE beside its controls. If attention also moves to the heart with somebody else's ECG
# and labs, or with teachers of random weights, the shift is no proof that learned physiology was distilled.
# And look in the figure above whether another region gained more than the heart did.

# %% tags=["hide-input"]
from pacx.evaluation.evidence import load_evidence, pool
from pacx.figures.tables import about_the_evidence

if run.is_phantom:
    heart = table[table["region"] == "heart"].set_index("model")
    smallest = 0.05 * heart.loc["pacx", "area"]

    def moved(shift):
        """What a shift's interval lets one say."""
        if shift.low > smallest:
            return "towards the heart"
        return "away from the heart" if shift.high < -smallest else "not shown"

    shifts = [
        ("this run", m, difference_of(heart.loc[m]))
        for m in ("pacx", "pacx-shuffled", "pacx-untrained")
    ]
    repeated = load_evidence("attention")
    if repeated is not None:
        of_heart = "region == 'heart' and method == 'rollout' and model in @names"
        names = [model for _, model, _ in shifts]
        shifts += [
            ("evidence", row.model, Estimate(row.value, row.low, row.high))
            for row in pool(repeated.query(of_heart)).itertuples()
        ]
    in_heart = pd.DataFrame(
        {
            "where": [where for where, _, _ in shifts],
            "model": [name_of(model) for _, model, _ in shifts],
            "change of the heart's share [95 %]": [str(shift) for _, _, shift in shifts],
            "smallest that counts": smallest,
            "attention moved": [moved(shift) for _, _, shift in shifts],
        }
    )
    display(about_the_evidence(), show(in_heart, digits=4))

# %% [markdown]
# Whatever this says, be careful. Rollout ignores values, MLPs and the direction of an
# effect {cite:p}`jain2019attention,chefer2021transformer`. It shows from where the CLS token
# *could* have drawn, not what made the decision.
#
# ## What moved this decision?
#
# Attribution asks the probe on the CLS token itself. Its *evidence* in an image $x$ (not the book's
# evidence, its repetitions) is what it sees beyond a baseline image $x'$, here the mean training X-ray:
# $f(x) - f(x')$, with $f$ the {term}`logit`. Two maps share it out among the patches.
#
# *Integrated gradients* {cite:p}`sundararajan2017integrated` go from $x'$ to $x$ in small steps and
# collect the gradient on the way. With $e_l$ patch $l$ as a token ([chapter 02](02_cxr_mae)),
#
# $$\text{IG}_l = (e_l - e'_l)\cdot\int_0^1 \frac{\partial f}{\partial e_l}\big(e' + \beta(e - e')\big)
# \, d\beta, \qquad \sum_l \text{IG}_l = f(x) - f(x').$$
#
# *Occlusion* {cite:p}`zeiler2014visualizing` lets one patch show the mean X-ray and notes how far the
# logit falls. It needs no gradient, but sees one patch at a time. Both can be negative: the patch speaks
# against the evidence. Where $f(x) < f(x')$ both maps are turned around, so that a positive patch always
# speaks for it. Figures and shares use the strength, without the sign. Library: Captum
# {cite:p}`kokhlikyan2020captum`.

# %% tags=["remove-input"]
from pacx.evaluation import attribution

show_source(attribution.integrated_gradients, attribution.occlusion)

# %%
from pacx.evaluation.attribution import (
    ProbedEncoder,
    explain,
    faithfulness_tables,
    randomisation_table,
)

if run.is_phantom:
    n_measured = min(40, len(truth) // 10)
    mean_image = images_of(run, phantoms, "train").mean(axis=0, dtype=np.float32)
    baseline = normalise(torch.from_numpy(mean_image)[None])
    inputs, shown = (
        normalise(torch.from_numpy(np.array(images[rows]))) for rows in (slice(n_measured), cases)
    )
    deciders = {
        m: ProbedEncoder(
            encoder_of(run, m), probe.weight[0, :, label].numpy(), probe.bias[0, 0, label].item()
        )
        for m, probe in probes.items()
    }
    measured = {m: explain(decider, inputs, baseline) for m, decider in deciders.items()}
    pictured = {m: explain(decider, shown, baseline) for m, decider in deciders.items()}

# %% mystnb={"image": {"alt": "The same test phantoms: the X-ray, then the strength of integrated gradients and of occlusion, each for MAE and for PaCX-MAE."}} tags=["hide-input"]
if run.is_phantom:
    strengths = {}
    for method, short in (("integrated gradients", "IG"), ("occlusion", "occlusion")):
        for model in compared:
            strength = torch.from_numpy(np.abs(pictured[model][method]))
            share = strength / strength.sum(dim=(1, 2), keepdim=True)
            strengths[f"{short}, {name_of(model)}"] = upsample(share, size).numpy()
    _ = overlays(images[cases], strengths, titles, "share of the map's strength per patch")

# %% [markdown]
# The same measure as for the rollout, on the first test patients: the share of the strength in
# each region, both encoders on the same patients.

# %%
if run.is_phantom:
    few = bootstrap_weights(patients[:n_measured], run.profile.bootstrap, run.profile.seed)
    near = {region: mask[:n_measured] for region, mask in regions.items()}
    by_method = []
    for method in ("integrated gradients", "occlusion"):
        strengths = {m: np.abs(measured[m][method]) for m in compared}
        by_method.append(shares_by_region(strengths, near, few, **facts, method=method))
    decisions = pd.concat(by_method, ignore_index=True)
    run.save_results("attention", pd.concat([table, decisions], ignore_index=True))

# %% tags=["hide-input"]
if run.is_phantom:
    in_regions = in_words(decisions, "method", "region").assign(area=decisions["area"])
    display(show(in_regions[decisions["region"] == "heart"]))
    display(folded(show(in_regions), "The same for all regions"))

# %% [markdown]
# ## Would random weights give the same map?
#
# A map that stays the same when the weights are random explains the picture or the architecture, not
# what was learned {cite:p}`adebayo2018sanity`. So PaCX-MAE is randomised from the last block down to the
# first, and the probe is left as it is. Spearman's rank correlation of the new map's strength with the
# old one, for every fourth of these patients: 1 = the same order of patches, 0 = unrelated. These are
# few patients and one draw of random weights; the interval covers no other draw. Some agreement is to be
# expected: both attributions grow with how far a patch differs from the mean X-ray, whatever the
# weights.
#
# A limit was set before the first run: a map depends on the weights if, with all of them random, the
# whole interval lies below 0.5.

# %%
if run.is_phantom:
    seed, some = run.profile.seed, slice(None, None, 4)
    trained = {method: maps[some] for method, maps in measured["pacx"].items()}
    randomised = randomisation_table(
        deciders["pacx"], inputs[some], baseline, trained, few[:, some], seed, **facts, model="pacx"
    )
    run.save_results("randomisation", randomised)

# %% mystnb={"image": {"alt": "Rank correlation of the maps of rollout, integrated gradients and occlusion with those of an ever more randomised PaCX-MAE, with 95 percent bands."}} tags=["hide-input"]
from pacx.figures.attention import embedding_maps, method_curves

if run.is_phantom:
    axes = {"x_label": "made random, with all to its left", "y_label": "rank correlation"}
    _ = method_curves(randomised, x="what", **axes)

# %% tags=["hide-input"]
if run.is_phantom:
    last = randomised[randomised["what"] == "patch embedding"]
    all_random = pd.DataFrame(
        {
            "method": last["method"],
            "patients": len(inputs[some]),
            "rank correlation, all random [95 %]": [
                str(Estimate(row.value, row.low, row.high)) for row in last.itertuples()
            ],
            "depends on the weights": np.where(last["high"] < 0.5, "yes", "not shown"),
        }
    )
    display(show(all_random))

# %% [markdown]
# ## Do these patches decide?
#
# If a map is right, the evidence goes quickly when the patches that it ranks highest show the mean X-ray
# instead (*deletion*), and comes quickly when they are the first to be put back (*insertion*)
# {cite:p}`petsiuk2018rise`. The judge is a random order of the patches. Rollout goes by its value; the
# others by their signed value, patches for the evidence first. Unlike rollout, both use the probe's
# output. Their curves may leave the range from 0 to 1: patches that speak against the evidence
# stay to the end.

# %%
if run.is_phantom:
    pairs = [
        faithfulness_tables(decider, inputs, baseline, measured[m], few, seed, **facts, model=m)
        for m, decider in deciders.items()
    ]
    areas, curves = (pd.concat(kind, ignore_index=True) for kind in zip(*pairs, strict=True))
    run.save_results("faithfulness", areas)

# %% mystnb={"image": {"alt": "Evidence left against the share of patches removed or put back in the order of rollout, integrated gradients, occlusion and at random, for MAE and PaCX-MAE, with 95 percent bands."}} tags=["hide-input"]
if run.is_phantom:
    axes = {"x_label": "share of patches removed, or put back", "y_label": "share of the evidence"}
    _ = method_curves(curves, x="share", **axes)

# %% [markdown]
# Area under each curve, and its difference from the random order on the same patients. A faithful
# map has a small area under deletion and a large one under insertion.

# %% tags=["hide-input"]
if run.is_phantom:
    display(folded(show(in_words(areas, "metric", "method")), "All areas, with their intervals"))
    judged = areas.dropna(subset=["difference_value"])
    good = np.where(
        judged["metric"] == "deletion", judged["difference_high"] < 0, judged["difference_low"] > 0
    )
    better = judged.assign(
        model=judged["model"].map(name_of), better=np.where(good, "yes", "not shown")
    ).pivot(index=["model", "method"], columns="metric", values="better")
    better = better.add_prefix("better than a random order: ")
    display(show(better.reset_index().rename_axis(columns=None)))

# %% [markdown]
# ## A map of the patients
#
# The last picture leaves the X-ray. t-SNE {cite:p}`vandermaaten2008tsne` lays the CLS tokens of the first
# test patients out in the plane so that neighbours stay neighbours. The colour is the true state behind
# the chapter's task, which no encoder was told. Distances between far groups mean nothing, and
# another seed gives another picture. So neighbours are measured as well, in the full space and for
# all test patients: how far a patient's state is from the mean of the ten nearest others, once by CLS
# tokens and once by means of patches. Below zero, PaCX-MAE puts patients of like state closer together.
#
# Point at a patient, or move the slider from the smallest cavity to the largest: the X-ray shows below,
# and a ring marks the same patient in both maps.

# %% tags=["hide-input"]
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

if run.is_phantom:
    state = phantoms.split("test")[f"state_{task}"].to_numpy()
    spots, miss = {}, {}
    for model in compared:
        features = extract_features(run, model, images)
        spots[model] = TSNE(max_iter=500, random_state=seed).fit_transform(features.cls[:500])
        for pooling in POOLING_NAMES:
            space = NearestNeighbors(n_neighbors=10).fit(getattr(features, pooling))
            nearest = space.kneighbors(return_distance=False)
            miss[pooling, model] = np.abs(state[nearest].mean(axis=1) - state)
    order = np.argsort(state[:500])
    figure = embedding_maps(
        {model: places[order] for model, places in spots.items()},
        state[order],
        "size of the left ventricle's cavity, standard deviations",
    )
    step = -(-size // 64)  # small pictures: a page is to be light
    on_a_map = image_slider(
        np.array(images[order][:, ::step, ::step]),
        [f"patient {k}, size {state[k]:+.2f}" for k in order],
        slider="Patient, by the size of the cavity",
        alt="The X-ray of the chosen patient.",
        figure=figure,
        figure_alt="t-SNE map of the CLS tokens of test phantoms, MAE beside PaCX-MAE, coloured by the size of the left ventricle's cavity.",
    )
    display(on_a_map)

    closer = {
        pooling: mean_over_cases(miss[pooling, "pacx"] - miss[pooling, "mae"], weights)
        for pooling in POOLING_NAMES
    }
    distances = pd.DataFrame(
        {
            "neighbours by": list(POOLING_NAMES.values()),
            **{
                f"{name_of(model)}, standard deviations": [
                    miss[pooling, model].mean() for pooling in POOLING_NAMES
                ]
                for model in compared
            },
            "PaCX-MAE minus MAE [95 %]": list(map(str, closer.values())),
            "which is": list(map(verdict, closer.values())),
        }
    )
    display(show(distances))

# %% [markdown]
# ## Beside the evidence
#
# The demo's settings on fresh cohorts of **phantom** patients, with several trainings on each
# ([how](../book/protocol)):

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_evidence

if run.is_phantom:
    shares = pd.concat([table, decisions], ignore_index=True)
    display(beside_the_evidence(shares[shares["region"] == "heart"], "attention"))
    display(folded(beside_the_evidence(shares, "attention"), "The same for all regions"))
    say("Areas of deletion and insertion, minus those of a random order:")
    display(beside_the_evidence(areas, "faithfulness"))

# %% [markdown]
# Rank correlation with the maps of an encoder whose weights are all random, in the evidence:

# %% tags=["hide-input"]
repeated = load_evidence("randomisation")
if repeated is not None:
    last = repeated[repeated["what"] == "patch embedding"]
    held = (last["high"] < 0.5).groupby(last["method"]).sum()
    pooled = pool(last, "value")
    in_evidence = pd.DataFrame(
        {
            "method": pooled["method"],
            "rank correlation [95 %]": [
                str(Estimate(row.value, row.low, row.high)) for row in pooled.itertuples()
            ],
            "runs below the limit": [
                f"{held[row.method]} of {row.runs}" for row in pooled.itertuples()
            ],
        }
    )
    display(about_the_evidence(), show(in_evidence))

# %% [markdown]
# ## A real X-ray
#
# File `RG1_UNCR.dcm` of the DICOM standard's test images, as the package `pydicom-data` (MIT
# licence) distributes it. It has no ECG and no blood tests in this book. In a phantom profile the
# encoders have **only ever seen phantoms**: the maps show what such an encoder does with a real
# chest, and no more.

# %% mystnb={"image": {"alt": "A real frontal chest radiograph with the rollout of MAE, of PaCX-MAE, and their difference."}} tags=["hide-input"]
from pydicom.data import get_testdata_file

file = Path(get_testdata_file("RG1_UNCR.dcm", download=False))
real = load_images(file.parent, [file.name], size, run.cache)
real_maps = {}
for model in compared:
    rollout = torch.from_numpy(np.array(extract_rollouts(run, model, real)))
    real_maps[name_of(model)] = upsample(rollout, size).numpy()
_ = declare(run, overlays(real, real_maps, ["RG1_UNCR.dcm"]))

# %% [markdown]
# ## Check it yourself

# %%
from pacx.evaluation import attribution
from pacx.evaluation.attention import attention_maps, mass_in_mask

encoder = encoder_of(run, "pacx")
some = normalise(torch.from_numpy(real.copy()))
maps = attention_maps(encoder, some)

# Attention is a distribution: every row sums to one, in every layer and head.
assert torch.allclose(maps.sum(dim=-1), torch.ones(()), atol=1e-4)

if run.is_phantom:
    # Rollout of random weights is nearly even: a region has the share of its area, give or take
    # a quarter, whatever the weights are.
    even = table[table["model"] == "random"]
    assert (abs(even["value"] / even["area"] - 1) < 0.25).all()
    # A mask and its complement share the whole map.
    outside = torch.from_numpy(near["outside the body"])
    for values in measured["pacx"].values():
        strength = torch.from_numpy(np.abs(values))
        both = mass_in_mask(strength, outside) + mass_in_mask(strength, 1 - outside)
        assert torch.allclose(both, torch.ones(()), atol=1e-4)
    for model, decider in deciders.items():
        # Integrated gradients are complete: they sum to the evidence, but for the error of few steps.
        total = measured[model]["integrated gradients"].sum(axis=(1, 2))
        whole = np.abs(attribution.logit_change(decider, inputs, baseline))
        assert np.abs(total - whole).mean() < 0.05 * whole.mean()
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# Rollout says from where the CLS token could have drawn, attribution what moved the probe's decision. Each
# was measured on patients chosen by a rule, against regions that are known exactly, and tested by random
# weights and by removing patches. The table has the change of each region's share, PaCX-MAE minus MAE: a
# shift to the heart counts only beyond the limit above, and only if the controls do not show it as well.

# %% tags=["hide-input"]
if run.is_phantom:
    shares = pd.concat([table, decisions], ignore_index=True)
    moves = shares[shares["model"] == "pacx"]
    moves = moves.assign(change=[str(difference_of(row)) for _, row in moves.iterrows()])
    moves = moves.pivot(index="region", columns="method", values="change")
    moves = moves.loc[table["region"].unique(), shares["method"].unique()]
    display(show(moves.reset_index().rename_axis(columns=None)))
else:
    say(
        "On real data nothing is measured here. The chapter shows maps of a few cases of the first "
        "benchmark, where its terms allow that, and of one public X-ray."
    )

# %% [markdown]
# ## Exercises
#
# 1. Why compare the share on the heart with the heart's area?
#
# ```{dropdown} Answer
# A map that is the same everywhere puts exactly that share on the heart. Only what exceeds it is a
# preference.
# ```
#
# 2. You choose the three most convincing of a thousand difference maps. What have you shown?
#
# ```{dropdown} Answer
# That three such maps exist. Noise would give some as well. The rule, the losses and the mean over
# all patients are there to prevent it.
# ```
#
# 3. Rollout of `random` weights is nearly even. What would it mean if it were not?
#
# ```{dropdown} Answer
# That the map shows the picture, or the architecture, rather than what was learned. A map that
# does not change when the weights are random explains nothing {cite:p}`adebayo2018sanity`.
# ```
#
# ## Next
#
# [Chapter 11](11_using_the_encoder) takes the encoder out of the book.
#
# ## References
#
# Rollout: {cite:p}`abnar2020quantifying`. Integrated gradients:
# {cite:p}`sundararajan2017integrated`. Cautions: {cite:p}`jain2019attention`,
# {cite:p}`adebayo2018sanity`, {cite:p}`chefer2021transformer`. Occlusion:
# {cite:p}`zeiler2014visualizing`. Captum: {cite:p}`kokhlikyan2020captum`. Faithfulness:
# {cite:p}`petsiuk2018rise`. Map of patients: {cite:p}`vandermaaten2008tsne`.
