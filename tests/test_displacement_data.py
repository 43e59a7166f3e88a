"""Frames of molecules displaced from DFT's minima: the plan and the committed file."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data import generate_displacements as generator
from ase_hmlp.training.data.generate_dynamics import bonds_of
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
        shift = frame.positions - minimum.positions
        shift -= (shift @ np.linalg.inv(frame.cell.array)).round() @ frame.cell.array
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


def test_committed_frames_are_those_of_the_plan(plan):
    planned = {frame.info["source"]: frame for frame in plan}
    committed = list(iterate_structures(COMMITTED))
    assert {atoms.info["source"] for atoms in committed} == set(planned)
    for atoms in committed:
        frame = planned[atoms.info["source"]]
        np.testing.assert_allclose(atoms.positions, frame.positions, atol=1e-6)
        assert atoms.info["split"] == frame.info["split"]
        assert atoms.info["group"] == "displaced"
        assert "Quantum ESPRESSO" in atoms.info["label"] and "PBE" in atoms.info["label"]
        assert "mesh_error" in atoms.info
