"""The frames of dynamics: the plan, how structures are built and checked, the committed file."""

import io
import lzma
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.geometry import get_distances
from ase.io import read, write

from ase_hmlp.training.append_only import split_frames
from ase_hmlp.training.data import generate_dynamics as generator
from ase_hmlp.training.frames import frame_from_atoms

PLAN = generator.plan()
BY_NAME = {trajectory.name: trajectory for trajectory in PLAN}
COMMITTED = Path(generator.__file__).with_name("h2-pbe-dynamics.extxyz.xz")


@pytest.fixture(scope="module")
def committed():
    text = lzma.decompress(COMMITTED.read_bytes()).decode()
    return read(io.StringIO(text), ":", format="extxyz")


def trajectory(family, phase=None):
    return next(t for t in PLAN if t.family == family and phase in (None, t.phase))


# ---------------------------------------------------------------- the plan


def test_the_plan_is_the_same_every_time():
    assert generator.plan() == PLAN
    assert len(BY_NAME) == len(PLAN)
    # No two trajectories share a random stream, and each has the same one again.
    draws = [t.rng.integers(2**62) for t in PLAN]
    assert len(set(draws)) == len(PLAN)
    assert draws == [t.rng.integers(2**62) for t in generator.plan()]


def test_every_family_has_a_test_split_over_its_whole_range():
    for family in generator.FAMILIES:
        members = [t for t in PLAN if t.family == family]
        test = [t for t in members if t.split == "test"]
        assert 0.1 < len(test) / len(members) < 0.3
        if family == "pair":
            continue
        pressures = sorted({t.pressure for t in members})
        third = len(pressures) // 3
        assert min(t.pressure for t in test) <= pressures[third]
        assert max(t.pressure for t in test) >= pressures[-1 - third]


@pytest.mark.parametrize("part", [0.25, 0.5, 1.0])
def test_any_first_part_of_the_plan_is_a_small_whole_one(part):
    first = Counter((t.family, t.split) for t in PLAN[: round(part * len(PLAN))])
    whole = Counter((t.family, t.split) for t in PLAN)
    for kind, count in whole.items():
        expected = part * count
        if kind[0] == "large":
            expected = max(0.0, part - generator.LARGE_FROM) / (1 - generator.LARGE_FROM) * count
        # Each kind is spread evenly: off by one at either end, and by the others' rounding.
        assert abs(first[kind] - expected) <= 1.0 + 0.02 * count


# ---------------------------------------------------------------- building


@pytest.mark.parametrize("build", [generator.pca21, generator.pa3])
def test_ordered_phases_are_close_packed_molecules(build):
    atoms = build(2.4)
    assert atoms.get_volume() / len(atoms) == pytest.approx(2.4)
    molecules = generator.find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    bonds = generator.bonds_of(atoms, molecules)
    assert np.linalg.norm(bonds, axis=1) == pytest.approx(generator.MEAN_BOND, abs=1e-6)
    centres = atoms.positions[molecules[:, 0]] + bonds / 2
    crystal = atoms.repeat(3)
    many = (centres[:, None] + crystal_images(atoms)).reshape(-1, 3)
    distance = np.linalg.norm(many - centres[0], axis=1)
    # Twelve neighbours at the one distance of a close packing of this density.
    nearest = (np.sqrt(2) * 2 * 2.4) ** (1 / 3)
    assert np.sort(distance)[1:13] == pytest.approx(nearest, rel=1e-4)
    assert np.sort(distance)[13] > 1.3 * nearest
    assert len(crystal) == 27 * 8


def crystal_images(atoms):
    return (np.indices((5, 5, 5)).reshape(3, -1).T - 2) @ atoms.cell.array


def test_axes_of_pa3_are_the_cube_diagonals():
    atoms = generator.pa3(2.4)
    molecules = generator.find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    axes = generator.bonds_of(atoms, molecules) / generator.MEAN_BOND
    assert np.abs(axes) == pytest.approx(1 / np.sqrt(3), abs=1e-6)
    # Different diagonals meet at arccos(1/3).
    cosines = np.abs(axes @ axes.T)[np.triu_indices(4, 1)]
    assert cosines == pytest.approx(1 / 3, abs=1e-6)


def test_close_packing_has_the_volume_asked_for():
    rng = np.random.default_rng(1)
    for n, sizes in generator.HCP_CELLS.items():
        for size in sizes:
            atoms = generator.close_packed(size, 3.1, rng)
            assert len(atoms) == n
            assert atoms.get_volume() / n == pytest.approx(3.1)
            centres = atoms.positions.reshape(-1, 2, 3).mean(axis=1)
            _, d = get_distances(centres, centres, cell=atoms.cell, pbc=True)
            nearest = (np.sqrt(2) * 2 * 3.1) ** (1 / 3)
            assert d[d > 1e-3].min() == pytest.approx(nearest)


def test_strain_moves_centres_and_leaves_molecules_alone():
    rng = np.random.default_rng(2)
    atoms = generator.close_packed(("hex", 2, 2, 2), 2.5, rng)
    before = atoms.copy()
    strain = generator.random_strain(rng)
    assert strain == pytest.approx(strain.T)
    assert 0.02 <= np.abs(np.linalg.eigvalsh(strain)).max() <= 0.08
    generator.stretch_between(atoms, np.eye(3) + strain)
    pairs = [a.positions.reshape(-1, 2, 3) for a in (before, atoms)]
    bonds = [p[:, 1] - p[:, 0] for p in pairs]
    assert bonds[1] == pytest.approx(bonds[0])
    centres = [p.mean(axis=1) for p in pairs]
    assert centres[1] == pytest.approx(centres[0] @ (np.eye(3) + strain))
    assert atoms.cell.array == pytest.approx(before.cell.array @ (np.eye(3) + strain))


def test_displacement_does_not_count_the_cell_or_the_centre_of_mass():
    rng = np.random.default_rng(3)
    atoms = generator.close_packed(("hex", 2, 2, 2), 2.5, rng)
    molecules = np.arange(32).reshape(-1, 2)
    moved = atoms.copy()
    moved.set_cell(1.1 * atoms.cell, scale_atoms=True)
    moved.positions += [0.3, -2.0, 7.0]
    assert generator.wandering(moved, atoms, molecules) == pytest.approx(0.0, abs=1e-12)
    # Every molecule by a neighbour's distance, half of them there and half of them back.
    moved = atoms.copy()
    step = np.repeat([[0, 0, 1.0], [0, 0, -1.0]], 16, axis=0)
    moved.positions += step * (np.sqrt(2) * 5.0) ** (1 / 3)
    assert generator.wandering(moved, atoms, molecules) == pytest.approx(1.0)


# ---------------------------------------------------------------- exploring


def test_dynamics_of_a_trajectory_repeats():
    short = {"settle": 8.0, "apart": 8.0, "count": 2}
    planned = replace(trajectory("phase-I"), size=("hex", 2, 2, 1))
    first, second = (generator.explore_solid(planned, planned.rng, **short) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.positions, b.positions)
    assert np.abs(first[0].positions - first[1].positions).max() > 1e-3


def test_a_finished_frame_says_where_it_is_from_and_keeps_its_molecules_whole():
    planned = trajectory("pair", "L")
    frames, reasons = generator.explore(planned)
    assert (len(frames), reasons) == (planned.snapshots, [])
    atoms = generator.close_packed(("hex", 2, 2, 1), 2.5, np.random.default_rng(4))
    atoms.positions += [40.0, -3.0, 0.7]
    atoms.wrap()  # molecules across the border are torn apart
    done = generator.finish(atoms, trajectory("phase-I"), 3)
    assert done.info["source"] == f"dynamics/{done.info['trajectory']}/3"
    torn = np.linalg.norm(np.diff(atoms.positions.reshape(-1, 2, 3), axis=1), axis=-1)
    whole = np.linalg.norm(done.positions - done.positions[done.arrays["partner"]], axis=1)
    assert torn.max() > 2.0
    assert whole == pytest.approx(generator.MEAN_BOND, abs=5e-6)  # six digits


def test_a_broken_molecule_or_a_burst_cell_is_dropped():
    rng = np.random.default_rng(5)
    atoms = generator.close_packed(("hex", 2, 2, 1), 4.0, rng)
    longer = atoms.copy()
    bond = longer.positions[1] - longer.positions[0]
    longer.positions[1] = longer.positions[0] + 1.12 / 0.745 * bond
    with pytest.raises(generator.Dropped, match=r"bonds of 0.745 to 1.120 Å"):
        generator.finish(longer, trajectory("phase-I"), 0)
    thin = generator.close_packed(("hex", 2, 2, 1), 12.5, rng)
    with pytest.raises(generator.Dropped, match=r"12.50 Å³/atom"):
        generator.finish(thin, trajectory("phase-I"), 0)


def test_what_was_explored_is_not_explored_again(tmp_path, monkeypatch):
    planned = trajectory("pair", "T")
    first = generator.explored(planned, tmp_path)
    lost = trajectory("random")
    calls = []

    def explore(t):
        calls.append(t.name)
        raise generator.Dropped("molecules on the run")

    monkeypatch.setattr(generator, "explore", explore)
    again = generator.explored(planned, tmp_path)
    assert [a.info for a in again] == [a.info for a in first]
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, again, strict=True))
    assert generator.explored(lost, tmp_path) == generator.explored(lost, tmp_path) == []
    assert calls == [lost.name]
    assert (tmp_path / f"{lost.name}.dropped").read_text() == "molecules on the run\n"


def test_packing_leaves_out_a_half_written_frame(tmp_path, committed):
    running = tmp_path / "frames.extxyz"
    # Two that the plan has the other way round, and the beginning of a third.
    frames = [committed[i] for i in (len(committed) - 1, 0)]
    write(running, [*frames, committed[1]], format="extxyz")
    content = running.read_bytes()
    running.write_bytes(content[:-40])
    packed = generator.pack(running, PLAN)
    assert running.read_bytes() == content[:-40]
    text = lzma.decompress(packed.read_bytes())
    assert len(split_frames(text)) == 2
    got = read(io.StringIO(text.decode()), ":", format="extxyz")
    assert [a.info["source"] for a in got] == [a.info["source"] for a in reversed(frames)]
    assert got[0].get_potential_energy() == frames[1].get_potential_energy()
    assert got[0].get_forces() == pytest.approx(frames[1].get_forces())


# ---------------------------------------------------------------- the committed file


def test_committed_frames_are_those_of_the_plan(committed):
    assert len({a.info["source"] for a in committed}) == len(committed)
    for atoms in committed:
        planned = BY_NAME[atoms.info["trajectory"]]
        assert atoms.info["source"].rsplit("/", 1)[0] == f"dynamics/{planned.name}"
        assert atoms.info["group"] == planned.family
        assert atoms.info["split"] == planned.split
        # Extended XYZ has T for true.
        phase = "T" if atoms.info["phase"] is True else atoms.info["phase"]
        assert phase == planned.phase
        assert atoms.info["pressure"] == planned.pressure
        assert atoms.info["temperature"] in (0, planned.temperature)


def test_no_trajectory_is_on_both_sides(committed):
    sides = {
        split: {a.info["trajectory"] for a in committed if a.info["split"] == split}
        for split in ("train", "test")
    }
    assert sides["train"] and sides["test"]
    assert not sides["train"] & sides["test"]
    # Nor is a structure of one a copy of a structure of the other.
    geometry = {a.positions.tobytes() for a in committed}
    assert len(geometry) == len(committed)


def test_committed_frames_are_labelled_molecules_by_the_one_recipe(committed):
    contacts = lzma.decompress(COMMITTED.with_name("h2-pbe-contacts.extxyz.xz").read_bytes())
    first = read(io.StringIO(contacts.decode()), "0", format="extxyz")
    recipe = re.sub("k-points .*?;", "", first.info["label"])
    for atoms in committed:
        assert re.sub("k-points .*?;", "", atoms.info["label"]) == recipe
        frame = frame_from_atoms(atoms, atoms.info["source"])  # checks labels and partners
        assert frame.stress is not None
        lengths = np.linalg.norm(frame.bond_vectors(), axis=1)
        assert generator.INTACT[0] < lengths.min() and lengths.max() < generator.INTACT[1]
        # In one piece: the bond is there without looking across the border.
        here = atoms.positions[atoms.arrays["partner"]] - atoms.positions
        assert np.linalg.norm(here, axis=1).max() < generator.INTACT[1]
        # Net force: pw.x prints eight digits, far below what any of it is used for.
        assert np.abs(frame.forces.sum(axis=0)).max() < 1e-3 * len(atoms)
        label = atoms.info["label"]
        assert (" shifted;" in label) == (len(atoms) >= 96)
        assert (" and shifted, mean;" in label) == ("mesh_error" in atoms.info)


def test_frames_that_are_tested_on_are_labelled_on_both_meshes_where_it_matters(committed):
    for atoms in committed:
        dense = atoms.get_volume() / len(atoms) < 3.0 and len(atoms) < 96
        if dense and atoms.info["split"] == "test":
            assert 0.0 <= atoms.info["mesh_error"] < 0.01


def test_labels_agree_with_the_pressure_dynamics_was_held_at(committed):
    """A slipped unit or sign would be off by as much as the pressure itself, up to 200 GPa.

    A snapshot of a dozen molecules fluctuates by some 10 GPa, and where the potential errs most,
    at 200 GPa, its pressure is 7 GPa off. The kinetic part, up to 20 GPa, is in no label.
    """
    held = [a for a in committed if a.info["group"] in ("phase-I", "phase-II", "fluid")]
    kinetic = [len(a) * units.kB * a.info["temperature"] / a.get_volume() for a in held]
    got = (np.array(kinetic) - [a.get_stress()[:3].mean() for a in held]) / units.GPa
    off = got - [a.info["pressure"] for a in held]
    assert abs(off.mean()) < 7.0
    assert off.std() < 10.0
