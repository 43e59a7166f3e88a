"""The committed close contacts are those of the script that makes them."""

import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from ase_hmlp.training.data import generate_contacts

COMMITTED = Path(generate_contacts.__file__).with_name("h2-pbe-contacts.extxyz.xz")


@pytest.fixture(scope="module")
def plan():
    return generate_contacts.build_jobs(generate_contacts.read_parents(generate_contacts.PARENTS))


def shortest_contact(atoms):
    """Of atoms that are not bonded, or are images of each other."""
    cell = atoms.cell.array
    shifts = (np.indices((5, 5, 5)).reshape(3, -1).T - 2) @ cell
    vectors = atoms.positions[None] - atoms.positions[:, None]
    distances = np.linalg.norm(vectors[:, :, None] + shifts, axis=-1)
    bonded = atoms.arrays["partner"]
    nearest = np.sort(distances, axis=-1)
    nearest[np.arange(len(atoms)), bonded, 0] = np.inf
    np.fill_diagonal(nearest[:, :, 0], np.inf)
    return nearest.min()


def test_every_committed_frame_is_the_plan_s(plan):
    frames = read(io.StringIO(lzma.decompress(COMMITTED.read_bytes()).decode()), ":", "extxyz")
    assert [f.info["source"] for f in frames] == [job.source for job in plan]
    for frame, job in zip(frames, plan, strict=True):
        assert frame.positions == pytest.approx(job.atoms.positions, abs=1e-7)
        assert frame.cell.array == pytest.approx(job.atoms.cell.array, abs=1e-7)
        assert (frame.arrays["partner"] == job.atoms.arrays["partner"]).all()


def test_molecules_pushed_headlong_are_as_near_as_they_say(plan):
    jobs = [job for job in plan if "headlong" in job.source]
    assert len(jobs) == generate_contacts.N_HEADLONG
    for job in jobs:
        volume = job.atoms.get_volume() / len(job.atoms)
        assert 0.6 <= job.atoms.info["contact"] <= 0.9 and volume < generate_contacts.DENSE
        assert shortest_contact(job.atoms) == pytest.approx(job.atoms.info["contact"], abs=1e-5)
