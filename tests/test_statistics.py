"""Means and standard errors where both are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from strategies import seeds

from ase_hmlp.analysis.statistics import (
    FEWEST,
    MOST_BLOCKS,
    BlockedMean,
    estimate,
    jackknife_error,
    statistical_inefficiency,
)
from ase_hmlp.errors import TooFewFramesError


def correlated(n, memory, seed):
    """A first-order autoregressive series of unit variance: g = (1 + memory) / (1 - memory)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=n) * np.sqrt(1 - memory**2)
    start = [memory * rng.normal()]
    return lfilter([1.0], [1.0, -memory], noise, zi=start)[0]


def test_inefficiency_of_an_autoregressive_series():
    """Its relative spread is about sqrt(8 g / n) = 9 % here (Sokal 1997), of 20 means 2 %."""
    g = 1.9 / 0.1
    found = [statistical_inefficiency(correlated(20_000, 0.9, seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(g, rel=0.08)
    assert statistical_inefficiency(np.random.default_rng(0).normal(size=20_000)) < 1.1


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_errors_are_what_means_scatter_by(memory):
    """200 means know their scatter to 5 %; block errors are the largest of several estimates."""
    series = [correlated(4_000, memory, seed) for seed in range(200)]
    means = np.array([s.mean() for s in series])
    spread = means.std()
    estimates = [estimate(s) for s in series]
    assert [e.value for e in estimates] == pytest.approx(means)
    assert np.mean([e.error for e in estimates]) == pytest.approx(spread, rel=0.15)
    inside = np.mean([abs(e.value) < 2 * e.error for e in estimates])
    assert 0.90 < inside < 0.985  # 0.954; its spread is 0.015
    blocked = []
    for s in series:
        mean = BlockedMean()
        for x in s:
            mean.add(x)
        blocked.append(mean.error)
    assert 0.95 * spread < np.mean(blocked) < 1.5 * spread


@given(seeds, st.integers(1, 700), st.sampled_from([(), (3,), (2, 3)]))
def test_a_stream_in_blocks_has_the_plain_mean(seed, n, shape):
    values = np.random.default_rng(seed).normal(size=(n, *shape))
    stream = BlockedMean()
    for value in values:
        stream.add(value)
    assert stream.samples == n
    assert stream.mean == pytest.approx(values.mean(axis=0), abs=1e-12)
    blocks = stream.blocks
    assert len(blocks) < MOST_BLOCKS
    length = n // max(len(blocks), 1) if len(blocks) else 1
    for k, block in enumerate(blocks):
        power = 1 << (length.bit_length() - 1)
        assert block == pytest.approx(values[k * power : (k + 1) * power].mean(axis=0), abs=1e-12)
    error = np.asarray(stream.error)
    assert np.isnan(error).all() == (len(blocks) < FEWEST)


def test_jackknife_of_a_mean_is_its_standard_error():
    blocks = np.random.default_rng(1).normal(size=(12, 4))
    plain = blocks.std(axis=0, ddof=1) / np.sqrt(12)
    assert jackknife_error(blocks, lambda m: m) == pytest.approx(plain)


def test_jackknife_of_a_function_of_a_mean():
    """To first order the error of exp(mean) is that of the mean times exp(mean)."""
    stream = BlockedMean()
    for value in np.random.default_rng(2).normal(1.0, 0.3, size=10_000):
        stream.add(value)
    value, error = stream.jackknife(np.exp)
    assert value == pytest.approx(np.e, abs=5 * 0.003 * np.e)
    # From 8 to 15 blocks: known to 25 %.
    assert error == pytest.approx(0.003 * np.e, rel=0.6)


def test_a_constant_has_no_error():
    assert estimate(np.full(50, 0.1)).error < 1e-16
    assert statistical_inefficiency([2.0]) == 1.0


def test_a_drift_has_a_large_error():
    """There is little more than one independent sample in it."""
    drift = np.arange(20.0)
    assert estimate(drift).error > 0.6 * drift.std()


def test_too_few_samples_have_no_error():
    assert np.isnan(estimate([1.0, 2.0, 3.0]).error)
    assert np.isnan(estimate([5.0]).error) and estimate([5.0]).value == 5.0


def test_no_sample():
    with pytest.raises(TooFewFramesError, match="no sample to average"):
        estimate([])
    with pytest.raises(TooFewFramesError, match="no sample to average"):
        _ = BlockedMean().mean
    assert np.isnan(BlockedMean().error)
