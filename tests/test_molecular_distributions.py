"""Orientations, bond lengths and the molecular fraction, where they are known."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from strategies import rotations, seeds
from toy_models import from_molecules, hcp, random_axes
from trajectories import rotors

from ase_hmlp.analysis.bond_lengths import BondLengths
from ase_hmlp.analysis.molecular_fraction import MolecularFraction, molecular_atoms
from ase_hmlp.analysis.orientations import Orientations, polar_angles
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import AnalysisError
from ase_hmlp.simulate import structures as crystals

# ---------------------------------------------------------------- orientations


def test_isotropic_molecules_point_everywhere():
    (snapshot,) = Trajectory(hcp(3.0, (3, 3, 2)))
    frames = rotors(snapshot.centres, snapshot.cell, 300, seed=1)
    (result,) = analyse(Trajectory(frames), [Orientations(bins=12)])
    for name in ("polar", "azimuth"):
        table = result.table(name)
        z = (table["relative_density"] - 1.0) / table["relative_density_error"]
        assert abs(z).max() < 4.5
        assert table["relative_density"].mean() == pytest.approx(1.0)
        # Counts of 36 molecules in 12 bins: 1 ± sqrt(11 / 36) a frame.
        expected = np.sqrt(11 / 36 / 300)
        assert np.mean(table["relative_density_error"]) == pytest.approx(expected, rel=0.4)
    for name, power in (("<P2(cos)>", 1 / 5), ("<P4(cos)>", 1 / 9)):
        # <P_l^2> = 1 / (2 l + 1).
        assert result[name].error == pytest.approx(np.sqrt(power / 36 / 300), rel=0.5)
        assert abs(result[name].value) < 4 * result[name].error


@pytest.mark.parametrize("angle", [0.0, 30.0, 75.0, 90.0])
@pytest.mark.parametrize("azimuth", [10.0, 95.0, 170.0])
def test_a_known_direction(angle, azimuth):
    """A triclinic cell: polar angle from c, azimuth from a's part normal to it, right-handed."""
    cell = np.array([[4.0, 0.5, 0.3], [1.0, 5.0, -0.4], [0.7, 0.9, 6.0]])
    z = cell[2] / np.linalg.norm(cell[2])
    x = cell[0] - (cell[0] @ z) * z
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    s, c = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    axis = s * np.cos(np.radians(azimuth)) * x + s * np.sin(np.radians(azimuth)) * y + c * z
    for sign in (1.0, -1.0):
        atoms = from_molecules(np.zeros((1, 3)), sign * axis[None], cell=cell)
        (snapshot,) = Trajectory(atoms)
        cosine, found = polar_angles(snapshot.axes, snapshot.cell[2], snapshot.cell[0])
        assert cosine == pytest.approx(c, abs=1e-12)
        if angle:
            assert found == pytest.approx(azimuth)
        (result,) = analyse(Trajectory(atoms), [Orientations("c", bins=9)])
        assert result["<P2(cos)>"].value == pytest.approx(1.5 * c**2 - 0.5)
        assert result["<P4(cos)>"].value == pytest.approx((35 * c**4 - 30 * c**2 + 3) / 8)
        if angle:
            peak = result.table("azimuth")["relative_density"].argmax()
            assert peak == int(azimuth // 20)


@given(rotations(improper=False), seeds)
def test_they_turn_with_the_crystal(rotation, seed):
    rng = np.random.default_rng(seed)
    axes = random_axes(20, rng)
    pole, zero = rng.normal(size=(2, 3))
    first = polar_angles(axes, pole, zero)
    second = polar_angles(-axes @ rotation, pole @ rotation, zero @ rotation)
    assert second[0] == pytest.approx(first[0])
    difference = abs(second[1] - first[1])
    assert np.minimum(difference, 180.0 - difference) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "name, vector",
    [("P63m-16", "a"), ("P21c-8", "a"), ("P6122-36", "c"), ("Pa3-8", "c"), ("P21c-24-b", "c")],
)
def test_angles_are_about_the_normal_of_layers_where_there_are_some(name, vector):
    """P21c-8's vector a is 0.1 degrees off: its P4 changes by 0.1 degrees' times 4.4 at most."""
    atoms = crystals.load(name).repeat((2, 2, 1))
    (about,) = analyse(Trajectory(atoms), [Orientations(vector)])
    (found,) = analyse(Trajectory(atoms), [Orientations()])
    for quantity in ("<P2(cos)>", "<P4(cos)>"):
        assert found[quantity].value == pytest.approx(about[quantity].value, abs=8e-3)
    (note,) = found.notes
    if name in ("Pa3-8", "P21c-24-b"):
        assert found.inputs["settings"]["pole"] == "c"
        assert note.startswith("Angles are about cell vector c, for no layers were found: ")
        with pytest.raises(AnalysisError, match=r"^Frame 0 of the structure: The "):
            analyse(Trajectory(atoms), [Orientations("layers")])
    else:
        assert found.inputs["settings"]["pole"] == "layers"
        assert note.endswith(f"layers, which is along cell vector {vector}.")
        (asked,) = analyse(Trajectory(atoms), [Orientations("layers")])
        assert asked["<P2(cos)>"].value == found["<P2(cos)>"].value


def test_layers_are_those_of_each_frames_cell():
    """A shear along the layers leaves their normal, one across them turns it."""
    crystal, across = hcp(3.0, (2, 2, 2)), np.zeros((3, 3))
    across[0, 2] = 0.1  # x -> z
    (snapshot,) = Trajectory(crystal)
    normal = np.array([-0.1, 0.0, 1.0]) / np.sqrt(1.01)
    molecules = np.tile(normal, (len(snapshot.centres), 1))
    frames = [
        from_molecules(snapshot.centres @ shear, molecules, cell=snapshot.cell @ shear)
        for shear in (np.eye(3), np.eye(3) + across.T, np.eye(3) + across)
    ]
    (result,) = analyse(Trajectory(frames), [Orientations()])
    # Molecules 5.7 degrees off the first two normals, along the third.
    p2 = 1.5 / 1.01 - 0.5
    assert result.table("series")["P2"] == pytest.approx([p2, p2, 1.0])


def test_layers_in_several_ways_are_none():
    centres = 2.0 * np.indices((4, 4, 4)).reshape(3, -1).T
    axes = random_axes(64, np.random.default_rng(0))
    cubic = from_molecules(centres, axes, cell=8.0 * np.eye(3))
    (result,) = analyse(Trajectory(cubic), [Orientations()])
    assert "in layers in more than one way" in result.notes[0]
    cubic.pbc = (True, True, False)
    (result,) = analyse(Trajectory(cubic), [Orientations()])
    assert "not periodic" in result.notes[0]


@pytest.mark.parametrize("pole", ["a", "b", "c", (1.0, 0.0, 0.0), (0.0, 0.0, 2.0)])
def test_any_pole(pole):
    """Also along the vector from which azimuths would be counted."""
    atoms = hcp(3.0, (2, 2, 1))
    (result,) = analyse(Trajectory(atoms), [Orientations(pole)])
    assert np.isfinite(result.table("azimuth")["relative_density"]).all()
    assert result.table("polar")["relative_density"].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("pole", ["d", (1.0, 0.0), (0.0, 0.0, 0.0), (np.nan, 0.0, 1.0)])
def test_what_is_no_direction(pole):
    with pytest.raises(AnalysisError, match="A direction is a, b, c, layers or three numbers"):
        Orientations(pole)


# ---------------------------------------------------------------- bond lengths


def test_bonds_of_known_lengths():
    rng = np.random.default_rng(0)
    centres = 3.0 * np.array([[i, j, 0] for i in range(4) for j in range(4)])
    frames = []
    for _ in range(500):
        lengths = rng.normal(0.74, 0.02, 16)
        frames.append(from_molecules(centres, random_axes(16, rng), lengths, 12 * np.eye(3)))
    (result,) = analyse(Trajectory(frames), [BondLengths(bins=60)])
    mean, spread = result["mean bond length"], result["spread"]
    n = 500 * 16
    assert mean.error == pytest.approx(0.02 / np.sqrt(n), rel=0.2)
    assert abs(mean.value - 0.74) < 4 * mean.error
    assert spread.error == pytest.approx(0.02 / np.sqrt(2 * n), rel=0.2)
    assert abs(spread.value - 0.02) < 4 * spread.error
    table = result.table("bonds")
    r, density = table["bond_length_A"], table["density_per_A"]
    assert density.sum() * (r[1] - r[0]) == pytest.approx(1.0)
    gaussian = np.exp(-0.5 * ((r - 0.74) / 0.02) ** 2) / (0.02 * np.sqrt(2 * np.pi))
    # Bins of half a standard deviation lower the top by 1 %.
    peak = gaussian > 5
    assert density[peak] == pytest.approx(gaussian[peak], rel=0.12)


def test_rigid_bonds_have_no_spread():
    (result,) = analyse(Trajectory([hcp(3.0, (2, 2, 1))] * 10), [BondLengths()])
    assert result["spread"].value == pytest.approx(0.0, abs=1e-7)
    assert result["mean bond length"].value == pytest.approx(0.74)


# ---------------------------------------------------------------- molecular fraction


def test_fraction_of_a_mixture():
    """Four molecules and eight lone atoms on a wide grid; bonds that break and swap are welcome."""
    grid = 3.0 * np.array([[i, j, k] for i in range(3) for j in range(2) for k in range(2)], float)
    molecules = from_molecules(grid[:4], np.tile([0, 0, 1.0], (4, 1)))
    positions = np.vstack([molecules.positions, grid[4:]])
    mixed = Atoms("H16", positions, cell=[9, 6, 6], pbc=True)
    lone = Atoms("H16", 2.0 * np.indices((4, 2, 2)).reshape(3, -1).T, cell=[8, 4, 4], pbc=True)
    (result,) = analyse(Trajectory([mixed, lone], molecular=False), [MolecularFraction()])
    assert result.table("fraction")["molecular_fraction"] == pytest.approx([0.5, 0.0])
    assert result["molecular fraction"].value == pytest.approx(0.25)


def test_only_mutual_neighbours_are_molecules():
    chain = np.array([[0, 0, 0], [0.7, 0, 0], [1.5, 0, 0], [2.4, 0, 0]])
    found = molecular_atoms(chain, np.eye(3), (False,) * 3, 1.0)
    assert found.tolist() == [True, True, False, False]
    assert not molecular_atoms(chain, np.eye(3), (False,) * 3, 0.6).any()
    # An atom and its own image are none.
    assert not molecular_atoms(chain[:1], 0.8 * np.eye(3), (True,) * 3, 1.0).any()


@given(seeds)
def test_a_molecular_crystal_is_all_molecules(seed):
    atoms = hcp(3.0, (2, 1, 1), seed=seed)
    (snapshot,) = Trajectory(atoms)
    assert molecular_atoms(snapshot.positions, snapshot.cell, snapshot.pbc, 1.0).all()


def test_a_bond_has_a_length():
    with pytest.raises(AnalysisError, match="longest bond must be positive"):
        MolecularFraction(0.0)
