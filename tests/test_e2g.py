"""Layers of hcp crystals, and the phonon in which they shear against each other."""

import numpy as np
import pytest
from ase import Atoms, units
from hypothesis import given
from hypothesis import strategies as st
from motions import Springs, run, wavenumber
from strategies import rotations, seeds
from toy_models import hcp, pa3

from ase_hmlp.analysis.e2g import E2gPhonon
from ase_hmlp.analysis.spectra import verlet_seen
from ase_hmlp.analysis.stacking import alternate_layers
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import AnalysisError, MissingVelocitiesError, TimestepError
from ase_hmlp.simulate.build import phase, supercell


def centres(atoms):
    (snapshot,) = Trajectory(atoms)
    return snapshot.centres, snapshot.cell


# ---------------------------------------------------------------- layers


@given(st.sampled_from([(2, 2, 1), (3, 2, 2), (1, 3, 3)]), rotations(), seeds)
def test_layers_of_hcp_however_it_is_turned_and_numbered(size, rotation, seed):
    atoms = hcp(3.0, size)
    rng = np.random.default_rng(seed)
    sites, cell = centres(atoms)
    order = rng.permutation(len(sites))
    moved = sites[order] + 0.1 * rng.normal(size=sites.shape) + rng.uniform(-9, 9, 3)
    moved += rng.integers(-2, 3, size=sites.shape) @ cell
    layers = alternate_layers(moved @ rotation, cell @ rotation)
    height = np.round(sites[order] @ cell[2] / np.linalg.norm(cell[2]) ** 2 * 2 * size[2])
    expected = np.where(height % 2, 1.0, -1.0)
    assert np.array_equal(layers.signs * layers.signs[0], expected * expected[0])
    along = rotation.T @ np.array([0.0, 0.0, 1.0])
    assert abs(layers.normal @ along) == pytest.approx(1.0)
    frame = np.vstack([layers.normal, layers.basal])
    assert frame @ frame.T == pytest.approx(np.eye(3), abs=1e-12)


@pytest.mark.parametrize("name", ["P21c-8", "P63m-16"])
def test_hcp_like_crystals_have_layers(name):
    layers = alternate_layers(*centres(supercell(phase(name), 90)))
    assert layers.signs.sum() == 0.0


def liquid():
    """Forty molecules anywhere."""
    return np.random.default_rng(0).uniform(0.0, 6.0, (40, 3)), 6.0 * np.eye(3)


def odd():
    """Three layers of one site each: as hcp, but nothing to alternate with."""
    sites, cell = centres(hcp(3.0, (2, 2, 1)))
    third = np.concatenate([sites, sites[: len(sites) // 2] + cell[2]])
    return third, cell * [[1.0], [1.0], [1.5]]


def vacancy():
    sites, cell = centres(hcp(3.0, (3, 3, 2)))
    return sites[1:], cell


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: centres(pa3()), "no hcp crystal|not in those of hcp"),
        (lambda: centres(supercell(phase("P21c-24-a"), 90)), "not in those of hcp, where"),
        (liquid, "no hcp crystal"),
        (odd, "not in those of hcp"),
        (lambda: (lambda a, c: (a[:1], c))(*centres(hcp(3.0, (1, 1, 1)))), "no hcp crystal"),
        (
            lambda: centres(supercell(phase("P21c-24-b"), 90)),
            "repeats after an odd number of layers",
        ),
        (vacancy, "one holds 1 molecules more than the other"),
    ],
)
def test_what_is_not_hcp_is_refused(make, sentence):
    with pytest.raises(AnalysisError, match=sentence):
        alternate_layers(*make())


# ---------------------------------------------------------------- the phonon


def crystal(between, within, masses=None, seed=0, size=(2, 2, 2)):
    """Rigid molecules of an hcp crystal on springs to their twelve neighbours, 100 K."""
    atoms = hcp(3.0, size, seed=3)
    for pair in atoms.positions.reshape(-1, 2, 3):
        pair += 2.0  # no molecule across the cell
    if masses is not None:
        atoms.set_masses(np.full(len(atoms), masses))
    sites = 0.5 * (atoms.positions[1::2] + atoms.positions[::2])
    points = Atoms(f"H{len(sites)}", sites, cell=atoms.cell, pbc=True)
    nearest = (2.0 * 3.0 * np.sqrt(2.0)) ** (1 / 3)
    constants = np.zeros((len(sites), len(sites)))
    for i in range(len(sites)):
        vectors = points.get_distances(i, range(len(sites)), mic=True, vector=True)
        close = np.linalg.norm(vectors, axis=1) < 1.2 * nearest
        level = np.abs(vectors[:, 2]) < 0.1
        constants[i] = np.where(close, np.where(level, within, between), 0.0)
        constants[i, i] = 0.0
    atoms.calc = Springs(sites, constants)
    rng = np.random.default_rng(seed)
    momenta = rng.normal(size=(len(sites), 3)) * np.sqrt(units.kB * 100.0 * atoms.get_masses()[0])
    atoms.set_momenta(np.repeat(momenta, 2, axis=0))
    return atoms, constants, sites


def test_shear_of_layers_is_found_among_all_phonons():
    """u in one layer, -u in the next: w^2 = 2 sum_j k_j / M over neighbours j in other layers.

    Springs are alike along all directions, so that there is no other mode of this wave vector. The
    fit may miss by a fiftieth of the resolution, 0.8 1/cm: 0.1 %.
    """
    atoms, constants, sites = crystal(between=0.5, within=0.2)
    other = np.abs(sites[:, None, 2] - sites[None, :, 2]) > 0.1
    stiffness = 2.0 * (constants * other).sum(axis=1)
    assert np.ptp(stiffness) == pytest.approx(0.0)
    exact = wavenumber(stiffness[0], 2.0 * atoms.get_masses()[0])
    assert 500.0 < exact < 1500.0
    (found,) = analyse(Trajectory(run(atoms, 1.0, 6, 400)), [E2gPhonon(resolution=40.0)])
    assert found["E2g peak"].value == pytest.approx(verlet_seen(exact, 1.0), abs=0.8)
    assert found["E2g width"].value < 4.0
    table = found.table("e2g")
    assert np.trapezoid(table["projected_cm"], table["wavenumber_per_cm"]) == pytest.approx(
        1.0, rel=0.05
    )


def test_projection_does_not_change_by_rotation_or_repetition():
    atoms, _, _ = crystal(0.5, 0.2)
    frames = list(run(atoms, 2.0, 3, 110))

    def spectrum(frames):
        (found,) = analyse(Trajectory(frames), [E2gPhonon(resolution=100.0)])
        return found.table("e2g")["projected_cm"]

    plain = spectrum(frames)
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned, repeated = [], []
    for atoms in frames:
        velocities = atoms.get_velocities()
        other = atoms.copy()
        other.set_cell(atoms.cell @ q)
        other.positions = atoms.positions @ q
        other.set_velocities(velocities @ q)
        other.wrap()
        turned.append(other)
        repeated.append(atoms.repeat((1, 2, 1)))
        repeated[-1].info.update(atoms.info)
    # Single precision.
    assert spectrum(turned) == pytest.approx(plain, abs=1e-4 * plain.max())
    assert spectrum(repeated) == pytest.approx(plain, abs=1e-4 * plain.max())


# ---------------------------------------------------------------- refusals


def test_refusals():
    atoms, _, _ = crystal(0.5, 0.2)

    def refuse(frames, error, sentence, timestep=2.0):
        with pytest.raises(error, match=sentence):
            analyse(Trajectory(frames, timestep=timestep), [E2gPhonon()])

    silent = atoms.copy()
    del silent.arrays["momenta"]
    refuse([silent] * 3, MissingVelocitiesError, "which the E2g phonon needs")
    refuse([atoms] * 3, TimestepError, "at least every 11 fs", timestep=12.0)
    slab = atoms.copy()
    slab.pbc = (True, True, False)
    refuse([slab] * 3, AnalysisError, "not periodic in all directions")
    cubic = pa3()
    cubic.set_velocities(np.ones((8, 3)))
    refuse([cubic] * 3, AnalysisError, "hcp")
