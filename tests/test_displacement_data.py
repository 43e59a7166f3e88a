"""Frames of molecules displaced from DFT's minima: the plan and the committed file."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import units

from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data import generate_displacements as generator
from ase_hmlp.training.data import generate_dynamics
from ase_hmlp.training.data.generate_dynamics import bonds_of
from ase_hmlp.training.fidelity.crystals import DISPLACEMENT, modes
from ase_hmlp.training.fidelity.reference import PRESSURES
from ase_hmlp.training.frames import iterate_structures

COMMITTED = Path(generator.__file__).with_name("h2-pbe-displacements.extxyz.xz")


@pytest.fixture(scope="module")
def minima():
    """The last frame of each relaxation, by the source of the frame."""
    last = {a.info["trajectory"]: a for a in iterate_structures(generator.RELAXATIONS)}
    return {atoms.info["source"]: atoms for atoms in last.values()}


@pytest.fixture(scope="module")
def plan():
    return generator.plan()


@pytest.fixture(scope="module")
def committed():
    return list(iterate_structures(COMMITTED))


@pytest.fixture(scope="module")
def one_atom(committed):
    return [atoms for atoms in committed if atoms.info["trajectory"].startswith("one-atom")]


def shift_of(frame, minimum):
    """Displacements, Å, without translations of the cell."""
    shift = frame.positions - minimum.positions
    return shift - (shift @ np.linalg.inv(frame.cell.array)).round() @ frame.cell.array


def linear_shift_of(frame, minimum):
    """The same before molecules were turned: bonds grow as they turn, as displacements add up."""
    molecules = molecules_of(frame.arrays["partner"])
    shift = shift_of(frame, minimum)
    before, bonds = bonds_of(minimum, molecules), bonds_of(frame, molecules)
    axes = before / np.linalg.norm(before, axis=1)[:, None]
    squares = (bonds**2).sum(axis=1) / (bonds * axes).sum(axis=1)
    linear = bonds * (squares / np.linalg.norm(bonds, axis=1))[:, None]
    for side, column in ((-0.5, 0), (0.5, 1)):
        shift[molecules[:, column]] += side * (linear - bonds)
    return shift


def test_every_phase_has_displacements_to_fit_and_some_to_test(plan, minima):
    sources = [frame.info["source"] for frame in plan]
    assert len(set(sources)) == len(sources)
    assert {frame.info["phase"] for frame in plan if frame.info["split"] == "train"} == set(
        generator.COUNTS
    )
    splits = Counter(frame.info["split"] for frame in plan)
    assert 0.05 < splits["test"] / len(plan) < 0.3
    # On the side of the frame they were made from, and elsewhere than `hmlp compare` looks.
    for frame in plan:
        assert frame.info["split"] == minima[frame.info["parent"]].info["split"]
        assert frame.info["pressure"] not in PRESSURES


def test_molecules_are_displaced_by_as_much_as_said(plan, minima):
    moved, turned, longer = [], [], []
    for frame in plan:
        minimum = minima[frame.info["parent"]]
        np.testing.assert_allclose(frame.cell.array, minimum.cell.array, atol=1e-6)
        molecules = molecules_of(frame.arrays["partner"])
        before, after = bonds_of(minimum, molecules), bonds_of(frame, molecules)
        shift = shift_of(frame, minimum)
        # Half a bond moves the other way round at either end.
        shift = (shift[molecules[:, 0]] + shift[molecules[:, 1]]) / 2
        moved.append(shift)
        lengths = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
        longer.append(lengths[1] - lengths[0])
        cosine = (before * after).sum(axis=1) / (lengths[0] * lengths[1])
        turned.append(np.degrees(np.arccos(np.minimum(cosine, 1.0))))
    # A few hundred molecules each: standard deviations within 15 %.
    assert np.concatenate(moved).std() == pytest.approx(generator.MOVE, rel=0.15)
    assert np.concatenate(longer).std() == pytest.approx(generator.STRETCH, rel=0.15)
    # About two axes; the third one is the molecule's own.
    rms = np.sqrt((np.concatenate(turned) ** 2).mean())
    assert rms == pytest.approx(np.sqrt(2.0) * generator.TURN, rel=0.15)


def test_a_snapshot_is_the_same_however_many_there_are(monkeypatch):
    full = {frame.info["source"]: frame for frame in generator.plan()}
    monkeypatch.setattr(generator, "COUNTS", {"P21c-8": 1, "Pa3": 2})
    fewer = generator.plan()
    assert 0 < len(fewer) < len(full)
    for frame in fewer:
        np.testing.assert_array_equal(frame.positions, full[frame.info["source"]].positions)


def test_one_atom_is_displaced_at_a_time(one_atom, minima):
    assert {atoms.info["pressure"] for atoms in one_atom}.isdisjoint(PRESSURES)
    for frame in one_atom:
        lengths = np.linalg.norm(shift_of(frame, minima[frame.info["parent"]]), axis=1)
        assert np.sort(lengths)[:-1] == pytest.approx(0.0, abs=2e-6)
        assert lengths.max() == pytest.approx(DISPLACEMENT, abs=2e-6)


def test_soft_modes_have_the_energies_asked_for(committed, one_atom, minima):
    """Of each frame: its displacements in DFT's modes, and what DFT says of its energy."""
    along = [atoms for atoms in committed if atoms.info["trajectory"].startswith("along")]
    assert len(along) == generator.N_SOFT * len({atoms.info["pressure"] for atoms in along})
    shares, stiff, ratios = [], [], []
    for frame in along:
        minimum = minima[frame.info["parent"]]
        gamma = modes(minimum, [a for a in one_atom if a.info["parent"] == minimum.info["source"]])
        mass = np.sqrt(minimum.get_masses())[:, None]
        q = np.real(gamma.vector).T @ (mass * linear_shift_of(frame, minimum)).ravel()
        omega = 2 * np.pi * 100 * units._c * gamma.frequency / units.second
        limit, temperature = generator.SOFT[int(frame.info["source"].rsplit("/", 1)[1]) % 4]
        soft = (gamma.frequency > 1.0) & (gamma.frequency < limit)
        energies = 0.5 * (omega * q)[soft] ** 2
        shares.extend(2.0 * energies / (units.kB * temperature))
        stiff.extend(q[~soft])
        found = frame.get_potential_energy() - minimum.get_potential_energy()
        if temperature == min(t for _, t in generator.SOFT):
            ratios.append(found / energies.sum())
    # Squares of some thousand standard normal numbers.
    assert np.mean(shares) == pytest.approx(1.0, abs=5 * np.sqrt(2.0 / len(shares)))
    assert np.max(np.abs(stiff)) < 1e-5
    # At 40 K the crystal is nearly harmonic.
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)


def test_committed_frames_are_those_of_the_plan(committed):
    planned = {frame.info["source"]: frame for frame in generator.whole_plan(committed)}
    assert [atoms.info["source"] for atoms in committed] == list(planned)
    for atoms in committed:
        frame = planned[atoms.info["source"]]
        np.testing.assert_allclose(atoms.positions, frame.positions, atol=1e-6)
        assert atoms.info["split"] == frame.info["split"]
        assert atoms.info["group"] == "displaced"
        assert "Quantum ESPRESSO" in atoms.info["label"] and "PBE" in atoms.info["label"]
        assert "mesh_error" in atoms.info


def test_what_is_packed_is_not_labelled_again(tmp_path, committed, monkeypatch):
    """Only what is new, or moved, goes to the labeller."""
    asked = []

    def label(frames, output, *_, **__):
        asked.extend(frame.info["source"] for frame in frames)
        output.write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(generate_dynamics, "label_frames", label)
    output = tmp_path / "some.extxyz"
    generate_dynamics.write_packed(
        [atoms.copy() for atoms in committed[:3]], tmp_path / "some.extxyz.xz"
    )
    plan = [atoms.copy() for atoms in committed[:5]]
    plan[1].positions[0] += 0.01
    with pytest.raises(KeyboardInterrupt):
        generate_dynamics.label_and_pack(plan, output, object(), 1)
    assert asked == [plan[k].info["source"] for k in (1, 3, 4)]
    # A clone has no file of a labelling run, only what is packed.
    output.unlink()
    found = generate_dynamics.label_and_pack([committed[k].copy() for k in (0, 2)], output, None, 1)
    assert [atoms.info["source"] for atoms in found] == [plan[k].info["source"] for k in (0, 2)]
