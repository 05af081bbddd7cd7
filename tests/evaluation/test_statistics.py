import numpy as np
import pytest
from scipy.stats import norm, rankdata, spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pacx.evaluation.statistics import (
    Estimate,
    bootstrap_p,
    bootstrap_weights,
    difference_of,
    equivalence_p,
    f1_thresholds,
    fast_average_precision,
    holm,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    mean_over_cases,
    paired_table,
    rank_correlation,
    superiority_p,
    weighted_auroc,
)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_equals_sklearn(ties):
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.3
    scores = rng.normal(size=300) + truth
    scores = scores.round(0) if ties else scores
    ours = weighted_auroc(truth.astype(float), scores, np.ones((1, 300)))
    assert ours[0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_weights_are_repeated_cases():
    rng = np.random.default_rng(2)
    truth = (rng.random(200) < 0.4).astype(float)
    scores = (rng.normal(size=200) + truth).round(1)
    weights = rng.integers(0, 4, size=(5, 200)).astype(np.float32)
    for row, value in zip(weights, weighted_auroc(truth, scores, weights), strict=True):
        repeats = row.astype(int)
        expected = roc_auc_score(np.repeat(truth, repeats), np.repeat(scores, repeats))
        assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_average_precision_equals_sklearn_with_weights(decimals):
    rng = np.random.default_rng(8)
    truth = (rng.random(250) < 0.2).astype(float)
    scores = (rng.normal(size=250) + truth).round(decimals)
    whole = rng.integers(0, 4, size=(4, 250)).astype(np.float32)
    for weights in (np.ones((1, 250)), whole, rng.random((3, 250)) / 4):
        ours = fast_average_precision(truth, scores, weights)
        sklearn = [average_precision_score(truth, scores, sample_weight=row) for row in weights]
        assert ours == pytest.approx(sklearn, abs=1e-6)
    assert np.isnan(fast_average_precision(0 * truth, scores, whole)).all()
    nobody = fast_average_precision(truth[:0], scores[:0], whole[:, :0])
    assert np.isnan(nobody).all()
    unknown = np.column_stack([truth, np.full(len(truth), np.nan)])
    macro = macro_average_precision(unknown, np.column_stack([scores, scores]), whole)
    assert macro == pytest.approx(fast_average_precision(truth, scores, whole))


def test_one_class_has_no_auroc_and_leaves_the_mean():
    truth = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], float)
    scores = np.array([[0.9, 0.1], [0.2, 0.2], [0.8, 0.3], [0.1, 0.4]])
    once = np.ones((1, 4))
    assert np.isnan(weighted_auroc(truth[:, 1], scores[:, 1], once)[0])
    assert macro_auroc(truth, scores, once)[0] == 1.0


def test_unknown_labels_do_not_count():
    rng = np.random.default_rng(3)
    truth = (rng.random((100, 2)) < 0.5).astype(float)
    scores, known = rng.random((100, 2)), np.arange(100) >= 40
    masked = np.where(known[:, None], truth, np.nan)
    once = np.ones((1, 100))
    part = np.ones((1, 60))
    for macro, guess in (
        (macro_auroc, scores),
        (macro_average_precision, scores),
        (macro_f1, scores > 0.5),
    ):
        expected = macro(truth[known], guess[known], part)
        assert macro(masked, guess, once) == pytest.approx(expected)


def test_f1_equals_sklearn():
    rng = np.random.default_rng(4)
    truth = (rng.random((150, 3)) < 0.3).astype(float)
    decisions = rng.random((150, 3)) < [0.3, 0.6, 0.0]
    weights = rng.integers(0, 3, size=(4, 150)).astype(np.float32)
    for row, value in zip(weights, macro_f1(truth, decisions, weights), strict=True):
        expected = f1_score(truth, decisions, average="macro", sample_weight=row, zero_division=0)
        assert value == pytest.approx(expected, abs=1e-6)


def test_bootstrap_keeps_a_patients_images_together():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    weights = bootstrap_weights(patients, 50, seed=0)
    assert (weights[:, [0]] == weights[:, [2, 5]]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many draws as patients


def test_tuned_thresholds_are_the_best_there_are():
    rng = np.random.default_rng(9)
    truth = (rng.random((200, 3)) < [0.1, 0.4, 0.0]).astype(np.float32)
    truth[:50, 1] = np.nan
    scores = (rng.random((200, 3)) + 0.3 * np.nan_to_num(truth)).round(2).astype(np.float32)
    chosen = f1_thresholds(truth, scores)
    for c in (0, 1):
        known = ~np.isnan(truth[:, c])
        grid = np.unique(scores[known, c])
        found = [f1_score(truth[known, c], scores[known, c] >= t) for t in grid]
        reached = f1_score(truth[known, c], scores[known, c] >= chosen[c])
        assert reached == pytest.approx(max(found))
    assert chosen[2] == 0.5  # nobody is ill


def test_bootstrap_p_fits_the_interval():
    spread = np.random.default_rng(12).normal(size=4999)
    assert bootstrap_p(spread - np.quantile(spread, 0.03)) > 0.05
    assert bootstrap_p(spread - np.quantile(spread, 0.02)) < 0.05
    assert bootstrap_p(np.array([1.0, 2.0, np.nan, 3.0])) == 2 / 4
    assert bootstrap_p(np.zeros(9)) == 1.0  # the two encoders are the same
    assert np.isnan(bootstrap_p(np.full(9, np.nan)))


#: 20,001 resamples of a normal difference, without luck: its quantiles.
NORMAL = norm.ppf((np.arange(20_001) + 0.5) / 20_001)


@pytest.mark.parametrize("value", [-0.02, 0.0, 0.01, 0.03, 0.06])
@pytest.mark.parametrize("error", [0.005, 0.02])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.02])
def test_one_sided_tests_are_those_of_a_normal_difference(value, error, margin):
    spread = value + error * NORMAL
    above = norm.sf((value - margin) / error)
    assert superiority_p(spread, margin) == pytest.approx(above, abs=2e-4)
    lower, upper = norm.sf((value + margin) / error), norm.cdf((value - margin) / error)
    assert equivalence_p(spread, margin) == pytest.approx(max(lower, upper), abs=2e-4)
    assert equivalence_p(-spread, margin) == equivalence_p(spread, margin)


def test_equivalence_holds_where_the_90_percent_interval_is_within_the_margin():
    for value, error in ((0.0, 0.012), (0.0, 0.013), (0.01, 0.005), (0.01, 0.0065)):
        low, high = value + error * norm.ppf([0.05, 0.95])
        inside = -0.02 < low < high < 0.02
        assert (equivalence_p(value + error * NORMAL, 0.02) < 0.05) == inside


def test_superiority_without_a_margin_is_half_of_the_two_sided_p():
    spread = np.random.default_rng(13).normal(0.03, 0.02, 999)
    assert superiority_p(spread) == pytest.approx(bootstrap_p(spread) / 2)


def test_one_sided_tests_of_few_or_no_resamples():
    assert superiority_p(np.array([1.0, 2, 3])) == 1 / 4  # never 0
    assert superiority_p(np.array([1.0, np.nan, 3]), 2.0) == 2 / 3
    assert superiority_p(np.full(9, 0.01), 0.01) == 1.0  # as much as the margin is not more
    assert equivalence_p(np.full(19, 0.02), 0.02) == 1.0
    assert equivalence_p(np.zeros(19), 0.02) == 1 / 20
    nothing = np.full(9, np.nan)
    assert superiority_p(nothing) == 1.0
    assert equivalence_p(nothing, 0.1) == 1.0


@pytest.mark.parametrize(("truth", "test"), [(0.05, "above"), (0.05, "within"), (-0.05, "within")])
def test_a_difference_at_the_margin_is_claimed_in_one_of_twenty_data_sets(truth, test):
    """Means of 60 cases by the bootstrap, 600 data sets: by chance between 3 and 8 %."""
    rng, claimed = np.random.default_rng(14), 0
    weights = bootstrap_weights(np.arange(60), 400, seed=0)
    for _ in range(600):
        cases = rng.normal(truth, 0.1, 60)
        spread = weights @ cases / 60
        p = superiority_p(spread, 0.05) if test == "above" else equivalence_p(spread, 0.05)
        claimed += p < 0.05
    assert 0.03 <= claimed / 600 <= 0.08


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.03])) == pytest.approx([0.03])
    assert len(holm(np.array([]))) == 0


def test_holm_keeps_the_chance_of_any_false_alarm():
    """Five true null hypotheses whose tests share half of their noise: 4,000 families."""
    rng = np.random.default_rng(15)
    z = np.sqrt(0.5) * (rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 5)))
    alarms = [(holm(p) < 0.05).any() for p in norm.sf(z)]
    assert 0.02 < np.mean(alarms) < 0.05


def test_mean_over_cases_has_the_interval_of_a_mean():
    values = np.random.default_rng(5).normal(0.5, 1.0, 400)
    estimate = mean_over_cases(values, bootstrap_weights(np.arange(400), 4000, seed=0))
    error = values.std(ddof=1) / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def _paired_data_set(seed: int, noise: float) -> tuple[Estimate, float]:
    """PaCX - MAE on 150 patients of two images each; `noise` is PaCX's, MAE's is 1.2."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(150), 2)
    truth = (rng.random(150) < 0.4).astype(float)[patients]
    shared = (1.2 * truth[::2] + rng.normal(0, 0.6, 150))[patients]
    scores = {m: shared + rng.normal(0, s, 300) for m, s in (("mae", 1.2), ("pacx", noise))}
    once, weights = np.ones((1, 300)), bootstrap_weights(patients, 400, seed)

    def measure(model):
        return weighted_auroc(truth, scores[model], once)[0], weighted_auroc(
            truth, scores[model], weights
        )

    row = paired_table(["pacx"], "mae", measure).iloc[0]
    return difference_of(row), row["difference_p"]


@pytest.mark.parametrize("noise", [1.2, 0.6], ids=["null", "planted"])
def test_coverage_of_the_paired_interval(noise):
    """200 data sets: the 95 % interval holds the true difference in 91 to 99 % of them."""
    mae, pacx = (norm.cdf(1.2 / np.sqrt(2 * (0.6**2 + s**2))) for s in (1.2, noise))
    found = [_paired_data_set(seed, noise) for seed in range(200)]
    covered = np.mean([e.low <= pacx - mae <= e.high for e, _ in found])
    assert 0.91 <= covered <= 0.99
    small = np.mean([p < 0.05 for _, p in found])
    if noise == 1.2:
        assert small <= 0.09
    else:
        assert sum(e.low > 0 for e, _ in found) >= 160
        assert small >= 0.8


def test_paired_table_resamples_pairs():
    """Two scores that move together differ by a constant, however wide each one's interval is."""
    spread = np.random.default_rng(7).normal(size=500)
    values = {"mae": (0.0, spread), "pacx": (0.25, spread + 0.25)}
    table = paired_table(["mae", "pacx"], "mae", values.__getitem__, dataset="d").set_index("model")
    assert table.loc["mae", "high"] - table.loc["mae", "low"] > 3
    assert table.loc["pacx", "difference_low"] == pytest.approx(0.25)
    assert table.loc["pacx", "difference_high"] == pytest.approx(0.25)
    assert np.isnan(table.loc["mae", "difference_value"])


def test_rank_correlation_equals_scipy():
    rng = np.random.default_rng(4)
    truth = rng.normal(size=80).round(1)
    scores = truth + rng.normal(size=80)
    ours = rank_correlation(truth, scores, np.ones((1, 80), np.float32))
    assert ours[0] == pytest.approx(spearmanr(truth, scores).statistic, abs=1e-6)


def test_rank_correlation_of_a_weighting_is_that_of_repeated_ranks():
    rng = np.random.default_rng(5)
    truth, scores = rng.normal(size=(2, 60))
    weights = rng.integers(0, 4, size=(3, 60)).astype(np.float32)
    ranks = np.stack([rankdata(truth), rankdata(scores)])
    for row, value in zip(weights, rank_correlation(truth, scores, weights), strict=True):
        expected = np.corrcoef(np.repeat(ranks, row.astype(int), axis=1))[0, 1]
        assert value == pytest.approx(expected, abs=1e-6)
    assert np.isnan(rank_correlation(truth, 0 * scores, weights)).all()
