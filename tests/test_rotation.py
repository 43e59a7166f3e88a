"""Autocorrelation of angular momentum: free rotors, hindered ones, librators, all known."""

import numpy as np
import pytest
from ase import units
from hypothesis import given, settings
from hypothesis import strategies as st
from motions import lattice, molecule_frames, run
from scipy.integrate import quad
from strategies import rotations, seeds
from toy_calculator import toy_model
from toy_models import BOND_LENGTH, from_molecules, random_axes, toy_bond

from ase_hmlp import HMLP
from ase_hmlp.analysis.rotation import (
    Rotation,
    angular_momenta,
    correlate,
    first_below,
    free_rotor_orientation,
    second_rank,
    verdict,
)
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import (
    AnalysisError,
    MissingVelocitiesError,
    TimestepError,
    TooFewFramesError,
)
from ase_hmlp.potential import Potential

MU = 0.504


def rotate(source, **settings):
    (result,) = analyse(Trajectory(source), [Rotation(**settings)])
    return result


def turning(rates, angles, seed=0):
    """Bonds and velocities (t, m, 3) of rotors in planes of their own, by angle (t, m) and rate."""
    m = angles.shape[1]
    rng = np.random.default_rng(seed)
    first = random_axes(m, rng)
    second = np.cross(first, random_axes(m, rng))
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    cos, sin = np.cos(angles)[..., None], np.sin(angles)[..., None]
    bonds = BOND_LENGTH * (cos * first + sin * second)
    return bonds, BOND_LENGTH * rates[..., None] * (cos * second - sin * first)


def thermal_rates(m, temperature):
    """Angular velocities of m rotors at the quantiles of their distribution, 1/fs."""
    spread = np.sqrt(units.kB * temperature / (MU * BOND_LENGTH**2)) * units.fs
    return spread * np.sqrt(-2.0 * np.log(1.0 - (np.arange(m) + 0.5) / m))


# ---------------------------------------------------------------- functions of arrays


@given(seeds, st.integers(1, 6), st.integers(1, 20), st.integers(1, 15))
def test_correlation_is_the_sum_over_origins(seed, m, lags, origins):
    x = np.random.default_rng(seed).normal(size=(lags + origins, m, 3))
    expected = [
        np.mean([x[t, a] @ x[t + lag, a] for t in range(origins) for a in range(m)])
        for lag in range(lags + 1)
    ]
    assert correlate(x, lags) == pytest.approx(np.array(expected), abs=1e-10)


@given(seeds, rotations())
def test_second_rank_tensors_multiply_to_legendres_polynomial(seed, rotation):
    u, v = random_axes(2, np.random.default_rng(seed))
    p2 = 1.5 * (u @ v) ** 2 - 0.5
    assert second_rank(u) @ second_rank(v) == pytest.approx(p2)
    assert second_rank(u @ rotation) @ second_rank(-v @ rotation) == pytest.approx(p2)


@given(seeds)
def test_angular_momentum_is_that_about_the_centre_of_mass(seed):
    rng = np.random.default_rng(seed)
    r, v = rng.normal(size=(2, 2, 3))
    m = rng.uniform(1.0, 2.0, 2)
    about = m @ r / m.sum()
    drift = m @ v / m.sum()
    expected = sum(m[k] * np.cross(r[k] - about, v[k] - drift) for k in range(2))
    found = angular_momenta([r[1] - r[0]], [v[1] - v[0]], [m[0] * m[1] / m.sum()])
    assert found[0] == pytest.approx(expected)


def test_free_rotors_are_the_average_over_their_distribution():
    period = 150.0
    w0 = 2.0 * np.pi / period / np.sqrt(2.0)

    def mean(f):
        return quad(lambda w: w / w0**2 * np.exp(-0.5 * (w / w0) ** 2) * f(w), 0.0, 12.0 * w0)[0]

    times = np.array([0.0, 10.0, 40.0, 90.0, 300.0])
    c1, c2 = free_rotor_orientation(times, period)
    assert c1 == pytest.approx([mean(lambda w, t=t: np.cos(w * t)) for t in times], abs=1e-6)
    p2 = [mean(lambda w, t=t: 1.5 * np.cos(w * t) ** 2 - 0.5) for t in times]
    assert c2 == pytest.approx(p2, abs=1e-6)
    assert mean(lambda w: w * w) == pytest.approx((2.0 * np.pi / period) ** 2, rel=1e-6)


def test_first_below():
    times = np.arange(4.0)
    assert first_below(times, [1.0, 0.8, 0.2, 0.9], 0.5) == pytest.approx(1.5)
    assert first_below(times, [0.1, 0.8, 0.2, 0.9], 0.5) == 0.0
    assert np.isnan(first_below(times, np.ones(4), 0.5))


@pytest.mark.parametrize(
    "numbers, said",
    [
        ((1.0, 0.0, 1.0, 0.0), "free rotor"),
        ((0.6, 0.05, -0.01, 0.01), "free rotor"),
        ((0.2, 0.05, -0.01, 0.01), "hindered"),
        ((0.2, 0.05, -0.3, 0.01), "librating"),
        ((0.9, 0.05, -0.3, 0.01), "librating"),
        ((0.4, 0.05, 0.1, 0.01), "undecided"),
        ((0.2, 0.05, -0.06, 0.01), "undecided"),
        ((0.2, 0.05, -0.04, 0.01), "undecided"),
        ((0.2, np.nan, -0.3, np.nan), "undecided"),
        ((np.nan, np.nan, -0.3, 0.01), "librating"),
        ((np.nan, np.nan, 0.9, 0.01), "undecided"),
    ],
)
def test_verdicts(numbers, said):
    assert verdict(*numbers) == said


# ---------------------------------------------------------------- trajectories


def test_thermal_ensemble_of_free_rotors():
    """C_L = 1 and the axes follow Dawson's function.

    Rotors at the quantiles of their distribution are a sum over 125 frequencies for an integral:
    good to a hundredth or two while they turn by a few circles at most.
    """
    m, step = 125, 4.0
    rates = thermal_rates(m, 300.0)
    times = step * np.arange(700)
    bonds, velocities = turning(np.broadcast_to(rates, (700, m)), times[:, None] * rates)
    found = rotate(molecule_frames(bonds, velocities, step), longest=300.0)
    table = found.table("rotation")
    assert table["momentum"] == pytest.approx(np.ones(76), abs=1e-4)
    for name in ("axis", "axis_p2"):
        assert table[name] == pytest.approx(table[f"{name}_free"], abs=0.02)
    assert table["axis"].min() < -0.2
    # Cosines of the very frequencies, to single precision.
    cosines = np.cos(np.outer(table["time_fs"], rates)).mean(axis=1)
    assert table["axis"] == pytest.approx(cosines, abs=1e-4)
    assert found.title == "Rotation: free rotor"
    assert found["thermal rotation takes"].value == pytest.approx(
        2.0 * np.pi / np.sqrt(np.mean(rates**2)), rel=1e-5
    )
    assert found["temperature of rotation"].value == pytest.approx(300.0, rel=0.02)
    assert np.isnan(found["falls to 1/e after"].value)


def test_molecules_far_apart_are_free_rotors_in_a_run():
    """Nothing turns an angular momentum: what changes it is rounding and single precision."""
    rng = np.random.default_rng(0)
    centres, cell = lattice(2)
    atoms = from_molecules(centres + 2.0, random_axes(8, rng), cell=cell)
    momenta = rng.normal(size=(16, 3)) * np.sqrt(units.kB * 600.0 * 1.008)
    atoms.set_momenta(momenta)
    # Centres at rest: molecules must not meet.
    velocities = atoms.get_velocities().reshape(-1, 2, 3)
    atoms.set_velocities((velocities - velocities.mean(axis=1, keepdims=True)).reshape(-1, 3))
    model = toy_model(Potential(0.0, toy_bond()), volume=(1.0, 1e4))
    atoms.calc = HMLP(model, threads=1)
    found = rotate(run(atoms, 0.5, 8, 190), longest=80.0)
    assert found.table("rotation")["momentum"] == pytest.approx(np.ones(21), abs=1e-4)


def test_molecules_that_lose_their_momentum_in_collisions_are_hindered():
    """Collisions at random times that give each molecule a new momentum: C_L = exp(-t / tau)."""
    m, step, n, tau = 64, 5.0, 1200, 40.0
    rng = np.random.default_rng(1)
    spread = np.sqrt(units.kB * 300.0 / (MU * BOND_LENGTH**2)) * units.fs
    axis = random_axes(m, rng)
    rate = spread * rng.normal(size=(m, 3))
    bonds, velocities = np.empty((2, n, m, 3))
    for k in range(n):
        rate -= np.einsum("mc,mc->m", rate, axis)[:, None] * axis
        bonds[k], velocities[k] = BOND_LENGTH * axis, BOND_LENGTH * np.cross(rate, axis)
        angle = np.linalg.norm(rate, axis=1, keepdims=True) * step
        axis = axis * np.cos(angle) + np.cross(rate, axis) * step * np.sinc(angle / np.pi)
        hit = rng.random(m) < 1.0 - np.exp(-step / tau)
        rate[hit] = spread * rng.normal(size=(hit.sum(), 3))
    found = rotate(molecule_frames(bonds, velocities, step), longest=400.0)
    period = found["thermal rotation takes"]
    assert period.value > 2.0 * tau
    assert found.title == "Rotation: hindered"
    life = found["falls to 1/e after"]
    assert life.value == pytest.approx(tau, abs=4.0 * life.error)
    assert life.error < 0.1 * tau
    table = found.table("rotation")
    pulls = (table["momentum"] - np.exp(-table["time_fs"] / tau))[1:] / table["momentum_error"][1:]
    assert np.sqrt(np.mean(pulls**2)) < 2.0


def test_molecules_that_swing_librate():
    """Angles A cos(w t + p): C_L = cos(w t)."""
    m, step, w, swing = 8, 2.0, 0.06, 0.3
    phases = np.linspace(0.0, 2.0 * np.pi, m, endpoint=False)
    turn = w * step * np.arange(500)[:, None] + phases
    found = rotate(
        molecule_frames(*turning(-swing * w * np.sin(turn), swing * np.cos(turn)), step),
        longest=100.0,
    )
    assert found.title == "Rotation: librating"
    table = found.table("rotation")
    assert table["momentum"] == pytest.approx(np.cos(w * table["time_fs"]), abs=1e-3)
    assert found["lowest autocorrelation"].value == pytest.approx(-1.0, abs=1e-2)
    # Axes are never far from where they were.
    assert table["axis"].min() > 0.9


# ---------------------------------------------------------------- symmetries


def tumbling(seed, n=60, m=8, step=4.0):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.05, 0.12, m) * np.ones((n, 1))
    return turning(rates, rates * step * np.arange(n)[:, None], seed)


@settings(max_examples=3)
@given(seeds, rotations(improper=False))
def test_rotation_does_not_change_by_rotation_repetition_or_reversal(seed, rotation):
    bonds, velocities = tumbling(seed)
    names = ("momentum", "axis", "axis_p2")

    def functions(frames):
        table = rotate(frames, longest=100.0).table("rotation")
        return np.array([table[name] for name in names])

    plain = functions(molecule_frames(bonds, velocities, 4.0))
    turned = functions(molecule_frames(bonds @ rotation, velocities @ rotation, 4.0))
    assert turned == pytest.approx(plain, abs=1e-4)
    repeated = [(a, a.repeat((1, 1, 2))) for a in molecule_frames(bonds, velocities, 4.0)]
    for one, two in repeated:
        two.info.update(one.info)
    assert functions([two for _, two in repeated]) == pytest.approx(plain, abs=1e-4)
    # A free rotation looks the same backwards.
    backward = functions(molecule_frames(bonds[::-1], -velocities[::-1], 4.0))
    assert backward == pytest.approx(plain, abs=1e-4)


# ---------------------------------------------------------------- refusals


def test_refusals():
    def frames(n=60, step=4.0):
        return list(molecule_frames(*tumbling(0, n, step=step), step))

    silent = frames()
    for atoms in silent:
        del atoms.arrays["momenta"]
    with pytest.raises(MissingVelocitiesError, match="autocorrelation of angular momentum needs"):
        rotate(silent)
    with pytest.raises(TooFewFramesError, match="over 1000 fs need at least 500 frames 4 fs apart"):
        rotate(frames())
    with pytest.raises(TimestepError, match="at least 8 frames a turn"):
        rotate(frames(step=20.0), longest=200.0)
    bonds, _ = tumbling(0)
    still = np.broadcast_to(bonds[0], bonds.shape)
    with pytest.raises(AnalysisError, match="No molecule turns"):
        rotate(molecule_frames(still, still * 1e-3, 4.0), longest=100.0)


def test_a_lag_shorter_than_a_rotation_tells_less():
    found = rotate(molecule_frames(*tumbling(0, 120), 4.0), longest=40.0)
    assert found["thermal rotation takes"].value > 40.0
    assert found.title == "Rotation: undecided"
    assert np.isnan(found["momentum left after it"].value)
    assert any("longer than the longest lag" in note for note in found.notes)
    found.plot()


def test_a_short_run_has_no_verdict():
    found = rotate(molecule_frames(*tumbling(0), 4.0), longest=100.0)
    assert found.title == "Rotation: undecided"
    assert any("they need 0.9 ps" in note for note in found.notes)
