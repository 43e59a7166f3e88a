"""<EQQ> by hand, against a slow sum, and where symmetry makes it zero."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.units import Debye
from hypothesis import given
from strategies import PERIODIC, multiples, rotations, seeds, structures, translations
from toy_models import from_molecules, hcp, pa3
from trajectories import rotors

from ase_hmlp.analysis.quadrupoles import (
    QuadrupoleEnergy,
    orientational_factor,
    quadrupole_energy,
)
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import AnalysisError, TrajectoryError
from ase_hmlp.simulate import structures as crystals

X, Y, Z = np.eye(3)

#: 3 Q^2 / (4 pi eps0) in meV Å^5, with 1 D = 0.2081943 e Å and e^2/(4 pi eps0) = 14.399645 eV Å.
STRENGTH = 3000.0 * (0.26 * 0.2081943) ** 2 * 14.399645


def of(atoms, cutoff, edges=()):
    (snapshot,) = Trajectory(atoms)
    return quadrupole_energy(
        snapshot.centres, snapshot.axes, snapshot.cell, snapshot.pbc, cutoff, edges
    )


@pytest.mark.parametrize(
    ("name", "first", "second", "factor"),
    [
        ("H", X, X, 3),
        ("X", X, Y, 1),
        ("T", X, Z, -4),
        ("collinear", Z, Z, 8),
        ("flipped", -Z, Z, 8),
    ],
)
def test_two_molecules_by_hand(name, first, second, factor):
    """Separated along z, as in Fig. 5b; each pair counts from both ends, over two molecules."""
    assert orientational_factor(first, second, Z) == pytest.approx(factor)
    dimer = from_molecules(np.array([0 * Z, 2.5 * Z]), np.array([first, second]))
    energy, neighbours = of(dimer, 3.0)
    assert energy.sum() == pytest.approx(STRENGTH * factor / 2.5**5, rel=1e-6)
    assert neighbours == pytest.approx([1.0])


def test_the_debye_of_ase():
    assert Debye == pytest.approx(0.2081943, rel=1e-6)


def slow_sum(atoms, cutoff):
    (snapshot,) = Trajectory(atoms)
    faces = 1.0 / np.linalg.norm(np.linalg.inv(snapshot.cell), axis=0)
    # Centres may be anywhere: one more image for each cell they span.
    span = np.ptp(np.linalg.solve(snapshot.cell.T, snapshot.centres.T), axis=1)
    reach = [int(np.ceil(cutoff / f + s)) for f, s in zip(faces, span, strict=True)]
    total = 0.0
    m = len(snapshot.molecules)
    for shift in product(*(range(-k, k + 1) for k in reach)):
        for i in range(m):
            for j in range(m):
                r = snapshot.centres[j] + np.array(shift) @ snapshot.cell - snapshot.centres[i]
                d = np.sqrt(r @ r)
                if not 1e-9 < d < cutoff:
                    continue
                a, b = snapshot.axes[i] @ r / d, snapshot.axes[j] @ r / d
                c = snapshot.axes[i] @ snapshot.axes[j]
                gamma = 35 * a * a * b * b - 5 * a * a - 5 * b * b + 2 * c * c - 20 * a * b * c + 1
                total += gamma / d**5
    return STRENGTH * total / m


@pytest.mark.parametrize("name", ["P21c-8", "P63m-16"])
def test_a_crystal_against_a_slow_sum(name):
    """Triclinic too: the cell is sheared by a whole vector, which changes nothing."""
    atoms = crystals.load(name)
    expected = slow_sum(atoms, 6.0)
    assert of(atoms, 6.0)[0].sum() == pytest.approx(expected, rel=1e-6)
    sheared = atoms.cell.array
    sheared[2] += 2 * sheared[0]
    atoms.set_cell(sheared)
    assert of(atoms, 6.0)[0].sum() == pytest.approx(expected, rel=1e-6)


def test_default_cutoff_is_converged():
    """Within 0.2 meV/molecule for every crystal shipped, as its docstring says."""
    for name in crystals.NAMES:
        atoms = crystals.load(name)
        (result,) = analyse(Trajectory(atoms), [QuadrupoleEnergy()])
        assert result["<EQQ>"].value == pytest.approx(of(atoms, 25.0)[0].sum(), abs=0.2), name


def test_published_structure_at_100_gpa():
    """Static P2_1/c-8: -104 meV/molecule against the -76 of Table 1 at 50 K, same size and sign."""
    (result,) = analyse(Trajectory(crystals.load("P21c-8")), [QuadrupoleEnergy()])
    assert result["<EQQ>"].value == pytest.approx(-104.0, abs=1.0)


@given(structures(pbc=PERIODIC), rotations(), translations(), multiples(PERIODIC), seeds)
def test_it_is_a_property_of_the_crystal(structure, rotation, shift, times, seed):
    """Turned, shifted, repeated, its atoms in another order."""
    atoms = Atoms(f"H{len(structure)}", structure.positions, cell=structure.cell, pbc=True)
    energy, neighbours = of(atoms, 5.0, (2.0, 4.0))
    turned = Atoms(
        f"H{len(structure)}",
        structure.positions @ rotation + shift,
        cell=structure.cell @ rotation,
        pbc=True,
    )
    order = np.random.default_rng(seed).permutation(len(atoms))
    for same in (turned[order], atoms.repeat(times)):
        found = of(same, 5.0, (2.0, 4.0))
        assert found[0] == pytest.approx(energy, abs=1e-6 + 1e-9 * abs(energy).max())
        assert found[1] == pytest.approx(neighbours)


def test_free_rotors_have_none():
    """Uncorrelated: every frame is an independent sample of zero."""
    (snapshot,) = Trajectory(hcp(3.0, (3, 3, 2)))
    (result,) = analyse(
        Trajectory(rotors(snapshot.centres, snapshot.cell, 100, seed=5), timestep=10.0),
        [QuadrupoleEnergy()],
    )
    total = result["<EQQ>"]
    series = result.table("eqq")["eqq_meV"]
    assert total.error == pytest.approx(series.std() / np.sqrt(100), rel=0.2)
    assert abs(total.value) < 4 * total.error < 4.0
    assert result.table("eqq")["time_ps"][-1] == pytest.approx(0.99)


def test_shells_add_up_and_hold_the_neighbours_of_a_close_packing():
    (result,) = analyse(Trajectory(hcp(3.0, (3, 3, 2))), [QuadrupoleEnergy()])
    shells = [result[f"shell {k}"].value for k in (1, 2, 3)]
    assert sum(shells) == pytest.approx(result["<EQQ>"].value)
    assert result.notes[0].endswith("12.0 molecules.")
    assert result.notes[1].endswith("26.0 molecules.")  # 6 + 2 + 18


def test_the_order_of_frames_does_not_matter():
    frames = list(rotors(np.array([[0, 0, 0], [2.5, 0, 0]]), 5 * np.eye(3), 20))
    forth, back = (
        analyse(Trajectory(f), [QuadrupoleEnergy(shells=())])[0]["<EQQ>"].value
        for f in (frames, frames[::-1])
    )
    assert forth == pytest.approx(back)


def test_bad_settings():
    with pytest.raises(AnalysisError, match=r"Shells must end at rising distances, not \[2"):
        QuadrupoleEnergy(shells=(2.0, 1.0))
    with pytest.raises(AnalysisError, match=r"rising distances, not \[-1"):
        QuadrupoleEnergy(shells=(-1.0, 1.0))
    for cutoff in (0.0, -1.0, np.nan):
        with pytest.raises(AnalysisError, match="cutoff must be positive"):
            QuadrupoleEnergy(cutoff=cutoff)
    with pytest.raises(
        AnalysisError, match=r"Frame 0 .* last shell begins at .* beyond the cutoff"
    ):
        analyse(Trajectory(pa3()), [QuadrupoleEnergy(cutoff=3.0)])
    with pytest.raises(TrajectoryError, match="has no volume"):
        analyse(Trajectory(from_molecules(np.zeros((1, 3)), Z[None])), [QuadrupoleEnergy()])
