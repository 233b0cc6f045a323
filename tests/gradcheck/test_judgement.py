import math

import numpy as np
import pytest

from jaxnet.gradcheck import judgement
from jaxnet.gradcheck.judgement import Evidence


def evidence(error, *, size=2_000, count=8, bar=1e-9, seed=0, anchored=True):
    """Returns evidence of a gradient of norm 1 with an error of this norm."""
    generator = np.random.default_rng(seed)
    right = generator.normal(size=size)
    right /= np.linalg.norm(right)
    wrong = generator.normal(size=size)
    wrong *= error / np.linalg.norm(wrong)
    directions = generator.normal(size=(count, size))
    return Evidence(
        given=directions @ (right + wrong),
        numerical=directions @ right + bar * generator.uniform(-1, 1, count),
        bars=np.full(count, bar),
        doubts=np.full(count, 3 * bar),
        systematic=np.zeros(count),
        anchor=directions @ right if anchored else None,
        distance=error if anchored else math.nan,
        given_norm=float(np.linalg.norm(right + wrong)),
        anchor_norm=1.0 if anchored else math.nan,
        exact=False,
    )


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize(
    ("error", "verdict"), [(0.0, "pass"), (1e-6, "pass"), (0.1, "fail"), (2.0, "fail")]
)
def test_verdicts(error, verdict, anchored):
    for seed in range(50):
        judged = judgement.judge(evidence(error, seed=seed, anchored=anchored), 1e-3, 1e-6)
        assert judged.verdict == verdict
        assert judged.interval.low <= error <= judged.interval.high
        assert (judged.miss <= 1e-6) == (verdict == "pass")
        assert judged.norm == pytest.approx(1, rel=1e-12 if anchored else 0.7)


def test_with_an_anchor_the_verdict_is_sharp():
    for error, verdict in ((0.99e-3, "pass"), (1.01e-3, "fail")):
        assert judgement.judge(evidence(error), 1e-3, 1e-6).verdict == verdict


def test_without_one_what_is_close_to_the_tolerance_is_inconclusive():
    judged = judgement.judge(evidence(1e-3, anchored=False), 1e-3, 1e-6)
    assert judged.verdict == "inconclusive"


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_wide_bars_neither_pass_nor_fail(error, anchored):
    found = evidence(error, bar=1.0, anchored=anchored)
    assert judgement.judge(found, 1e-3, 1e-6).verdict == "inconclusive"
    found = found._replace(numerical=found.given, systematic=found.bars)
    assert judgement.judge(found, 1e-3, 1e-6).verdict == "inconclusive"
    found = found._replace(
        bars=np.full(8, np.inf), doubts=np.full(8, np.inf), systematic=np.zeros(8)
    )
    assert judgement.judge(found, 1e-3, 1e-6).verdict == "inconclusive"


def test_round_off_hides_no_error():
    """Added to what shows of an error, noise of its size makes none look smaller than it is."""
    passed = sum(
        judgement.judge(evidence(1e-3, bar=1e-3, seed=seed, anchored=False), 1e-3, 1e-2).verdict
        == "pass"
        for seed in range(1_000)
    )
    assert passed <= 20  # a hundredth, and two standard deviations


@pytest.mark.parametrize("anchored", [True, False])
def test_an_error_of_the_size_that_is_claimed_to_be_seen_fails(anchored):
    sees = judgement.judge(evidence(0.0, anchored=anchored), 1e-3, 1e-6).sees
    for seed in range(200):
        found = evidence(1.05 * sees, seed=seed, anchored=anchored)
        assert judgement.judge(found, 1e-3, 1e-6).verdict == "fail"


def test_the_chance_of_a_miss_is_what_it_says():
    """With the error a hundredth and only two directions, some look five times smaller."""
    trials, error, miss = 4_000, 1e-2, 1e-2
    intervals = [
        judgement.interval(
            error * np.random.default_rng(seed).normal(size=2),
            evidence(0.0, count=2, bar=0.0),
            miss,
        )
        for seed in range(trials)
    ]
    below = np.mean([each.high < error for each in intervals])
    above = np.mean([each.low > error for each in intervals])
    # Binomial: three standard deviations of sqrt(0.01 * 0.99 / 4000).
    assert below == pytest.approx(miss, abs=0.005)
    assert above == pytest.approx(miss, abs=0.005)


def test_all_coordinates_leave_nothing_to_chance():
    bars = evidence(0.0, count=2, bar=0.5)._replace(exact=True)
    interval = judgement.interval(np.array([3.0, 4.0]), bars, 1e-6)
    # For an error to be alleged, the bars count three times.
    assert interval == pytest.approx((math.hypot(1.5, 2.5), math.hypot(3.5, 4.5)))
