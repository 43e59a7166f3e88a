"""Radial distribution functions: ideal gas, crystals, a slow count, invariances."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from strategies import PERIODIC, multiples, rotations, seeds, structures, translations
from toy_models import from_molecules, hcp, random_axes

from ase_hmlp.analysis.pair_distributions import PairDistributions, first_peak, pair_counts
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import AnalysisError

#: Half of the distance between faces is 4.2 Å at least.
CELL = np.array([[10.0, 0.0, 0.0], [3.0, 9.0, 0.0], [-2.0, 1.0, 11.0]])


def rdf_of(frames, molecular=True, **settings):
    trajectory = Trajectory(frames, molecular=molecular)
    return analyse(trajectory, [PairDistributions(molecular=molecular, **settings)])[0]


def z_scores(table, name, expected, used):
    error = table[f"{name}_error"][used]
    return (table[name][used] - expected) / error


def test_ideal_gas_of_atoms():
    """Triclinic cell, one independent sample a frame: g = (N - 1) / N within its errors."""
    rng, n = np.random.default_rng(1), 40
    frames = (
        Atoms(f"Ar{n}", rng.uniform(-1, 2, (n, 3)) @ CELL, cell=CELL, pbc=True) for _ in range(320)
    )
    table = rdf_of(frames, molecular=False, width=0.2).table("rdf")
    used = table["r_A"] > 0.5
    z = z_scores(table, "atom_atom", (n - 1) / n, used)
    # Errors are themselves known to a fifth.
    assert abs(z).max() < 4.5
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.3
    # The mean over all distances, weighted with the pairs in each bin, is known to 0.3 %.
    weight = table["r_A"][used] ** 2
    assert np.average(table["atom_atom"][used], weights=weight) == pytest.approx(
        1 - 1 / n, abs=0.01
    )


def test_ideal_gas_of_molecules():
    """Molecules that do not see each other, at least one Å apart so that bonds can be found."""
    rng, m = np.random.default_rng(2), 24
    molecules = np.arange(2 * m).reshape(-1, 2)
    frames = []
    for _ in range(320):
        centres = rng.uniform(size=(m, 3)) @ CELL
        frames.append(from_molecules(centres, random_axes(m, rng), cell=CELL))
    trajectory = Trajectory(frames, molecules=molecules)
    (result,) = analyse(trajectory, [PairDistributions(width=0.2)])
    table, ideal = result.table("rdf"), (m - 1) / m
    far = table["r_A"] > 0.5
    for name in ("atom_atom_intermolecular", "atom_molecule", "molecule_molecule"):
        z = z_scores(table, name, ideal, far)
        assert abs(z).max() < 4.5, name
    # The bonds themselves: one partner for every atom, all in the bin of 0.74 Å.
    bonded = table["atom_atom"] - table["atom_atom_intermolecular"]
    width = table["r_A"][1] - table["r_A"][0]
    edges = width * np.arange(len(bonded) + 1)
    volume = abs(np.linalg.det(CELL))
    neighbours = bonded * 2 * m / volume * 4 * np.pi / 3 * np.diff(edges**3)
    assert neighbours.sum() == pytest.approx(1.0)
    assert np.flatnonzero(neighbours > 1e-9).tolist() == [int(0.74 / width)]


def test_neighbours_of_a_close_packing():
    """12, 6, 2, 18 and 12 neighbours; cell 2 x 2 x 1 only, far smaller than the cutoff."""
    crystal = hcp(3.0, (2, 2, 1))
    d = (np.sqrt(2.0) * 6.0) ** (1 / 3)
    result = rdf_of(crystal, cutoff=1.95 * d, width=0.01)
    table = result.table("rdf")
    edges = np.linspace(0.0, 1.95 * d, len(table["r_A"]) + 1)
    neighbours = table["molecule_molecule"] / 6.0 * 4 * np.pi / 3 * np.diff(edges**3)
    shells = np.split(neighbours, np.searchsorted(edges[1:], d * np.array([1.2, 1.5, 1.68, 1.85])))
    assert [s.sum() for s in shells] == pytest.approx([12, 6, 2, 18, 12])
    assert result["first peak, molecule–molecule"].value == pytest.approx(d, abs=0.01)


def slow_counts(positions, centres, molecules, cell, cutoff, bins):
    owner = {a: k for k, pair in enumerate(molecules) for a in pair}
    counts = np.zeros((4, bins))
    points = [("a", i, p) for i, p in enumerate(positions)]
    points += [("c", k, p) for k, p in enumerate(centres)]
    shifts = np.array(list(product(range(-4, 5), repeat=3))) @ cell
    for kind_i, i, p in points:
        for kind_j, j, q in points:
            if (kind_i, kind_j) == ("c", "a"):
                continue
            for d in np.linalg.norm(q - p + shifts, axis=1):
                if d >= cutoff or (d < 1e-9 and (kind_i, i) == (kind_j, j)):
                    continue
                if kind_i == kind_j == "a":
                    row = 0 if owner[i] == owner[j] and d < 1.15 else 1
                elif kind_i == "a":
                    if owner[i] == j and d < 0.575:
                        continue
                    row = 2
                else:
                    row = 3
                counts[row, int(d / cutoff * bins)] += 1
    return counts


@pytest.mark.parametrize("seed", [0, 1])
def test_pair_counts_against_a_slow_count(seed):
    """A skewed cell 3 Å wide, counted to 5 Å: images and all."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.03, 0, 0], [1.4, 3.3, 0], [-1.0, 0.9, 3.6]])
    centres = rng.uniform(size=(2, 3)) @ cell
    atoms = from_molecules(centres, random_axes(2, rng), cell=cell)
    (snapshot,) = Trajectory(atoms, molecules=[[0, 1], [2, 3]])
    arguments = (snapshot.positions, snapshot.centres, snapshot.molecules, snapshot.cell)
    fast = pair_counts(*arguments, snapshot.pbc, 5.0, 50, 1.15)
    assert np.array_equal(fast, slow_counts(*arguments, 5.0, 50))


@given(structures(pbc=PERIODIC), rotations(), translations(), multiples(PERIODIC), seeds)
def test_it_is_a_property_of_the_structure(structure, rotation, shift, times, seed):
    atoms = Atoms(f"H{len(structure)}", structure.positions, cell=structure.cell, pbc=True)
    first = rdf_of(atoms, cutoff=4.0, width=0.5).table("rdf").arrays()
    order = np.random.default_rng(seed).permutation(len(atoms))
    turned = Atoms(
        f"H{len(structure)}",
        (structure.positions @ rotation + shift)[order],
        cell=structure.cell @ rotation,
        pbc=True,
    )
    for same in (turned, atoms.repeat(times)):
        found = rdf_of(same, cutoff=4.0, width=0.5).table("rdf").arrays()
        for name in first:
            # Rounding may move a pair across an edge, but not many.
            difference = abs(found[name] - first[name])
            assert np.nanmax(difference, initial=0.0) < 1e-9 or name.endswith("error")


def test_scaled_by_density_a_compressed_structure_is_the_same():
    """Centres scaled with the cell, molecules not: seed Fig. 3b."""
    loose, dense = hcp(4.0, (3, 3, 2)), hcp(2.0, (3, 3, 2))
    scaled = [rdf_of(a, width=0.05).table("scaled").arrays() for a in (loose, dense)]
    x = [s["r_scaled"] for s in scaled]
    assert x[0][-1] == pytest.approx(x[1][-1], rel=0.03)
    for s in scaled:
        # The nearest neighbours are 2^(1/6) away.
        assert s["r_scaled"][s["molecule_molecule"] > 0][0] == pytest.approx(2 ** (1 / 6), abs=0.03)


def test_all_kinds_of_pairs_are_scaled_by_density():
    """Of a structure blown up frame by frame, bonds and all, scaled ones are those of the first."""
    atoms = hcp(3.0, (2, 2, 2), seed=1)
    frames = [atoms.copy() for _ in range(3)]
    for k, frame in enumerate(frames):
        frame.set_cell(atoms.cell * (1.0 + 0.1 * k), scale_atoms=True)
    first = rdf_of(frames[:1], cutoff=5.0, width=0.1).table("rdf").arrays()
    all_of_them = rdf_of(frames, cutoff=5.0, width=0.1)
    scaled = all_of_them.table("scaled").arrays()
    spacing = (atoms.get_volume() / 16) ** (1 / 3)
    assert scaled["r_scaled"] * spacing == pytest.approx(first["r_A"])
    for name in ("atom_atom", "atom_atom_intermolecular", "atom_molecule", "molecule_molecule"):
        # Rounding may move a pair across an edge, but not many.
        assert np.mean(abs(scaled[name] - first[name]) > 1e-9) < 0.05
        assert abs(all_of_them.table("rdf")[name] - first[name]).max() > 0.3


def test_the_first_peak():
    """A Gaussian peak, a higher second one, and noise."""
    rng = np.random.default_rng(0)
    # Coarse bins first: the top is between two of them.
    r = 0.1 * (0.5 + np.arange(60))
    g = 2.5 * np.exp(-(((r - 2.013) / 0.2) ** 2)) + 3 * np.exp(-(((r - 4.0) / 0.3) ** 2))
    assert first_peak(r, g)[0] == pytest.approx(2.013, abs=0.01)
    r = 0.02 * (0.5 + np.arange(300))
    g = 2.5 * np.exp(-(((r - 2.013) / 0.2) ** 2)) + 3 * np.exp(-(((r - 4.0) / 0.3) ** 2))
    position, height = first_peak(r, g + 0.02 * rng.normal(size=300))
    assert position == pytest.approx(2.013, abs=0.01)
    assert height == pytest.approx(2.5, abs=0.05)
    assert np.isnan(first_peak(r, np.zeros(300))).all()
    assert np.isnan(first_peak(r, r)).all()  # still rising at its end


def test_the_error_of_a_peak():
    """Peaks of independent runs scatter as one run says."""
    rng = np.random.default_rng(3)
    crystal = hcp(3.0, (2, 2, 2))
    (snapshot,) = Trajectory(crystal)

    def run():
        frames = []
        for _ in range(40):
            moved = snapshot.centres + 0.1 * rng.normal(size=snapshot.centres.shape)
            frames.append(from_molecules(moved, snapshot.axes, cell=snapshot.cell))
        trajectory = Trajectory(frames, molecules=snapshot.molecules)
        result = analyse(trajectory, [PairDistributions(cutoff=2.8, width=0.05)])[0]
        return result["first peak, molecule–molecule"]

    peaks = [run() for _ in range(10)]
    spread = np.std([p.value for p in peaks], ddof=1)
    # Ten runs know the spread to a quarter.
    assert 0.4 * spread < np.median([p.error for p in peaks]) < 2.5 * spread


def test_bad_settings():
    with pytest.raises(AnalysisError, match="cutoff must be positive"):
        PairDistributions(cutoff=-1.0)
    with pytest.raises(AnalysisError, match="positive width"):
        PairDistributions(width=0.0)
    with pytest.raises(AnalysisError, match=r"Bins of 2 Å are too wide for distances up to 3"):
        rdf_of(hcp(3.0, (2, 2, 1)), width=2.0, cutoff=3.0)
    with pytest.raises(AnalysisError, match="periodic in all directions"):
        rdf_of(from_molecules(np.zeros((1, 3)), np.eye(3)[:1]))
