"""Mean-squared displacements that are known: ballistic, Brownian, bound, at rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motions import centre_frames, lattice
from strategies import rotations, seeds
from toy_models import random_axes

from ase_hmlp.analysis.diffusion import LAGS, Diffusion, Displacements, phase_verdict
from ase_hmlp.analysis.statistics import FEWEST
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import TimestepError, TooFewFramesError, TrajectoryError

#: Frames from which there are errors.
ENOUGH = LAGS + 2 * LAGS * FEWEST


def diffuse(source, **settings):
    (result,) = analyse(Trajectory(source, **settings), [Diffusion()])
    return result


def walk(n, m, spread, seed):
    """Random walks (n, m, 3): D = spread^2 / 2 dt."""
    steps = spread * np.random.default_rng(seed).normal(size=(n, m, 3))
    steps[0] = 0.0
    return steps.cumsum(axis=0)


# ---------------------------------------------------------------- the correlator


@given(seeds, st.integers(1, 5), st.integers(0, 150))
def test_moments_are_those_of_all_pairs_of_frames(seed, m, n):
    rng = np.random.default_rng(seed)
    positions, weights = rng.normal(size=(n, m, 3)), rng.uniform(1.0, 2.0, m)
    found = Displacements(weights)
    for r in positions:
        found.add(r)
    for level, moment in enumerate(found.moments):
        stride = 2**level
        r = positions[::stride]
        r = r - np.einsum("m,tmc->tc", weights / weights.sum(), r)[:, None]
        assert moment.samples == max(0, len(r) - LAGS)
        if not moment.samples:
            continue
        for row, lag in zip(moment.mean, found.lags(level), strict=True):
            moved = r[LAGS:] - r[LAGS - lag // stride : len(r) - lag // stride]
            expected = np.einsum("tma,tmb->ab", moved, moved) / (m * len(moved))
            assert row == pytest.approx(expected, abs=1e-10)


def test_lags_cover_all_scales_once():
    found = Displacements([1.0])
    for k in range(1000):
        found.add([[float(k), 0.0, 0.0]])
    lags = [found.lags(k)[(k > 0) :] for k in range(len(found.moments))]
    assert list(lags[0]) == list(range(1, 17))
    assert list(lags[1]) == [18, 20, 22, 24, 26, 28, 30, 32]
    assert np.all(np.diff(np.concatenate(lags)) > 0)


def test_memory_grows_with_the_logarithm():
    found = Displacements(np.ones(10))
    sizes = {}
    for k in range(4097):
        found.add(np.zeros((10, 3)))
        if k in (1024, 4096):
            sizes[k] = sum(past.nbytes for past in found._past)
    # 0.2 kB per atom (two of them in a molecule) for each doubling.
    assert (sizes[4096] - sizes[1024]) / 2 / 20 == LAGS * 3 * 8 / 2


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    "numbers, said",
    [
        ((1.0, 0.1, 2.0), "liquid"),
        ((0.0, 0.1, 0.2), "solid"),
        ((0.6, 0.1, 2.0), "undecided"),
        ((0.4, 0.1, 0.2), "undecided"),
        ((2.0, 0.0, 0.1), "undecided"),  # ballistic: too short to know
        ((0.0, 0.1, 2.0), "undecided"),
        ((1.0, np.nan, 2.0), "undecided"),
    ],
)
def test_verdicts(numbers, said):
    assert phase_verdict(*numbers, time=0.5) == said
    assert phase_verdict(*numbers, time=0.1) == ("undecided" if said == "solid" else said)


# ---------------------------------------------------------------- trajectories


def test_brownian_molecules():
    """MSD = 6 D t (1 - 1/m): the drift of the whole is taken off."""
    m, n, step, spread = 27, 600, 10.0, 0.1
    centres, cell = lattice(3)
    expected = spread**2 / 2.0 / step * 1000.0 * (1.0 - 1.0 / m)
    pulls = []
    for seed in range(4):
        found = diffuse(
            centre_frames(centres + walk(n, m, spread, seed), np.tile(cell, (n, 1, 1)), step)
        )
        d = found["diffusion coefficient"]
        assert d.error < 0.1 * expected
        pulls.append((d.value - expected) / d.error)
        assert found["exponent of time"].value == pytest.approx(
            1.0, abs=4.0 * found["exponent of time"].error
        )
        assert found["nearest-neighbour distance"].value == pytest.approx(4.0 * 2 ** (1 / 6))
    assert np.abs(pulls).max() < 4.0
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 2.0  # of four
    table = found.table("diffusion")
    assert table["time_ps"][0] == pytest.approx(step / 1000.0)
    assert table["msd_A2"][0] == pytest.approx(6.0 * expected * step / 1000.0, rel=0.02)


def test_liquid_verdict():
    m, n = 27, ENOUGH
    centres, cell = lattice(3)
    found = diffuse(centre_frames(centres + walk(n, m, 0.4, 0), np.tile(cell, (n, 1, 1)), 10.0))
    assert found.title == "Diffusion: liquid"
    assert found["after"].value == pytest.approx(0.16)


def test_ballistic_molecules():
    """MSD = <v^2> t^2, exactly; D is meaningless and the verdict open."""
    m, n = 27, ENOUGH
    rng = np.random.default_rng(0)
    velocities = 2e-4 * rng.normal(size=(m, 3))
    centres, cell = lattice(3)
    moved = np.arange(n)[:, None, None] * 5.0 * (velocities + np.array([0.01, -0.02, 0.03]))
    found = diffuse(centre_frames(centres + moved, np.tile(cell, (n, 1, 1)), 5.0))
    table = found.table("diffusion")
    relative = velocities - velocities.mean(axis=0)
    square = np.mean((relative**2).sum(axis=1)) * 1e6  # per ps^2
    assert table["msd_A2"] == pytest.approx(square * table["time_ps"] ** 2, rel=1e-9)
    assert found["exponent of time"].value == pytest.approx(2.0)
    assert found.title == "Diffusion: undecided"


def test_molecules_bound_to_sites_are_a_solid():
    """Ornstein-Uhlenbeck: MSD = 6 s^2 (1 - exp(-t / tau)) (1 - 1/m), to a plateau."""
    m, n, step, spread, memory = 27, 600, 10.0, 0.2, 0.8
    rng = np.random.default_rng(2)
    u = np.empty((n, m, 3))
    u[0] = spread * rng.normal(size=(m, 3))
    for k in range(1, n):
        u[k] = memory * u[k - 1] + spread * np.sqrt(1.0 - memory**2) * rng.normal(size=(m, 3))
    centres, cell = lattice(3)
    found = diffuse(centre_frames(centres + u, np.tile(cell, (n, 1, 1)), step))
    assert found.title == "Diffusion: solid"
    d = found["diffusion coefficient"]
    table = found.table("diffusion")
    k = np.round(table["time_ps"] * 1000.0 / step)
    expected = 6.0 * spread**2 * (1.0 - memory**k) * (1.0 - 1.0 / m)
    assert table["msd_A2"] == pytest.approx(expected, rel=0.15)
    # What is left of the rise at 8 to 16 strides.
    lags = np.arange(8, 17) * found["after"].value / 16.0
    rise = 6.0 * spread**2 * (1.0 - memory ** (lags * 1000.0 / step)) * (1.0 - 1.0 / m)
    assert d.value == pytest.approx(np.polyfit(lags, rise, 1)[0] / 6.0, abs=4.0 * d.error)
    assert any("A liquid that flows too slowly" in note for note in found.notes)


def test_a_crystal_at_rest_gives_nothing_at_all():
    centres, cell = lattice(2)
    n = ENOUGH
    found = diffuse(centre_frames(np.tile(centres, (n, 1, 1)), np.tile(cell, (n, 1, 1)), 20.0))
    assert found["diffusion coefficient"].value == pytest.approx(0.0, abs=1e-20)
    assert found.table("diffusion")["msd_A2"] == pytest.approx(0.0, abs=1e-20)
    assert found.title == "Diffusion: solid"
    found.plot()


def test_a_barostat_neither_adds_to_displacements_nor_breaks_their_unwrapping():
    """Walks in a cell that breathes by 3 % and is sheared, wrapped into it; the mean cell counts.

    The cell's own fluctuations cancel to (3 %)^2.
    """
    m, n, step, spread = 27, 600, 10.0, 0.15
    centres, cell = lattice(3)
    walked = centres + walk(n, m, spread, 5)
    fractional = walked @ np.linalg.inv(cell)
    rng = np.random.default_rng(6)
    cells = cell @ (np.eye(3) + 0.03 * rng.normal(size=(n, 3, 3)))
    cells += cell - cells.mean(axis=0)
    fixed = diffuse(centre_frames(walked, np.tile(cell, (n, 1, 1)), step))
    breathing = list(centre_frames(np.einsum("tmc,tcd->tmd", fractional, cells), cells, step))
    for atoms in breathing:
        atoms.wrap()
    found = diffuse(breathing)
    assert found.table("diffusion")["msd_A2"] == pytest.approx(
        fixed.table("diffusion")["msd_A2"], rel=5e-3
    )
    assert np.abs(walked - centres).max() > 4.0  # most left their cell


# ---------------------------------------------------------------- symmetries


@settings(max_examples=3)
@given(seeds, rotations())
def test_diffusion_does_not_change_by_rotation_repetition_drift_or_reversal(seed, rotation):
    n, m = 40, 8
    centres, cell = lattice(2)
    rng = np.random.default_rng(seed)
    walked = centres + walk(n, m, 0.2, seed)
    axes = random_axes(m, rng)
    cells = np.tile(cell, (n, 1, 1))

    def msd(frames):
        return diffuse(frames).table("diffusion")["msd_A2"]

    plain = msd(centre_frames(walked, cells, 10.0, axes))
    turned = centre_frames(walked @ rotation, cells @ rotation, 10.0, axes @ rotation)
    assert msd(turned) == pytest.approx(plain)
    drift = np.arange(n)[:, None, None] * rng.normal(size=3)
    assert msd(centre_frames(walked + 0.3 * drift, cells, 10.0, axes)) == pytest.approx(plain)
    repeated = []
    for atoms in centre_frames(walked, cells, 10.0, axes):
        repeated.append(atoms.repeat((2, 1, 1)))
        repeated[-1].info.update(atoms.info)
    assert msd(repeated) == pytest.approx(plain)
    # Backwards, the lags of level 0 see the same pairs of 33 frames.
    few = slice(2 * LAGS + 1)
    there = msd(centre_frames(walked[few], cells[few], 10.0, axes))[LAGS - 1]
    back = msd(centre_frames(walked[few][::-1], cells[few], 10.0, axes))[LAGS - 1]
    assert back == pytest.approx(there)


# ---------------------------------------------------------------- refusals


def test_refusals():
    centres, cell = lattice(2)

    def frames(n):
        cells = np.tile(cell, (n, 1, 1))
        return list(centre_frames(centres + walk(n, 8, 0.1, 0), cells, 10.0))

    with pytest.raises(TooFewFramesError, match="at least 17 frames, and there are 16"):
        diffuse(frames(16))
    unknown = frames(20)
    for atoms in unknown:
        del atoms.info["time_fs"]
    with pytest.raises(TimestepError, match="needed by diffusion"):
        diffuse(unknown)
    assert diffuse(unknown, timestep=10.0)["after"].value == pytest.approx(0.16)
    slab = frames(20)
    for atoms in slab:
        atoms.pbc = (True, True, False)
    with pytest.raises(TrajectoryError, match="has no volume"):
        diffuse(slab)


def test_frames_too_sparse_to_follow_are_refused():
    """Walks of 4 Å a frame, wrapped into a cell of 8 Å, would look like any slower ones."""
    centres, cell = lattice(2)
    walked = centres + walk(40, 8, 4.0 / np.sqrt(3.0), 0)
    frames = list(centre_frames(walked, np.tile(cell, (40, 1, 1)), 10.0))
    found = diffuse(frames, continuous=True).table("diffusion")["msd_A2"]
    assert found[0] == pytest.approx(16.0 * 7 / 8, rel=0.2)
    for atoms in frames:
        atoms.wrap()
    with pytest.raises(TrajectoryError, match=r"Frame 1 .* diffusion needs its path: use more"):
        diffuse(frames)


def test_a_short_run_has_no_verdict():
    centres, cell = lattice(2)
    n = 40
    found = diffuse(centre_frames(centres + walk(n, 8, 0.1, 0), np.tile(cell, (n, 1, 1)), 10.0))
    assert found.title == "Diffusion: undecided"
    assert np.isnan(found["diffusion coefficient"].error)
    assert any(f"they need {ENOUGH} frames" in note for note in found.notes)
