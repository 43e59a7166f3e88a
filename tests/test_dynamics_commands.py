"""``hmlp analyse`` for motion: what each command prints, writes and refuses."""

import json

import numpy as np
import pytest
from ase import units
from ase.io import write
from click.testing import CliRunner
from motions import LIGHT
from toy_models import hcp, random_axes

from ase_hmlp.analysis.diffusion import Diffusion
from ase_hmlp.analysis.e2g import E2gPhonon
from ase_hmlp.analysis.rotation import Rotation
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.analysis.vibron import Vibron
from ase_hmlp.cli import main

VIBRON, E2G = 4100.0, 800.0  # 1/cm

OPTIONS = {
    "vibron": ("--resolution", 300, "--integrator-step", 0.5),
    "e2g": ("--resolution", 300),
    "rotation": ("--longest", 100),
    "diffusion": (),
}


def moving(n=330, step=1.0):
    """An hcp crystal whose molecules vibrate and turn and whose layers shear."""
    atoms = hcp(3.2, (2, 2, 1), seed=1)
    rng = np.random.default_rng(0)
    first = random_axes(8, rng)
    second = np.cross(first, random_axes(8, rng))
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    centres = 0.5 * (atoms.positions[1::2] + atoms.positions[::2])
    signs = np.where(centres[:, 2] > 0.25 * atoms.cell[2, 2], 1.0, -1.0)
    phase, rate = rng.uniform(0.0, 6.0, (8, 1)), rng.uniform(0.05, 0.07, (8, 1))

    def positions(t):
        length = 0.74 + 0.02 * np.cos(2.0 * np.pi * LIGHT * VIBRON * t + phase)
        bonds = length * (np.cos(rate * t) * first + np.sin(rate * t) * second)
        shear = 0.03 * np.cos(2.0 * np.pi * LIGHT * E2G * t) * np.outer(signs, [1.0, 0.0, 0.0])
        both = np.stack([centres + shear - 0.5 * bonds, centres + shear + 0.5 * bonds], axis=1)
        return both.reshape(-1, 3)

    for k in range(n):
        frame = atoms.copy()
        frame.positions = positions(k * step)
        velocities = (positions(k * step + 1e-3) - positions(k * step - 1e-3)) / 2e-3
        frame.set_velocities(velocities / units.fs)
        frame.info["time_fs"] = k * step
        yield frame


@pytest.fixture(scope="module")
def frames():
    return list(moving())


@pytest.fixture(scope="module")
def path(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.extxyz"
    write(path, frames)
    return path


def hmlp(*arguments):
    return CliRunner().invoke(main, ["analyse", *map(str, arguments)])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_prints_and_writes(name, path, tmp_path):
    result = hmlp(name, path, "-o", tmp_path / "out", *OPTIONS[name])
    assert result.exit_code == 0, result.output
    assert "± error" in result.output and "Written: " in result.output
    record = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert record["inputs"]["trajectory"]["frames"] == 330
    table = np.genfromtxt(tmp_path / "out" / f"{name}.csv", delimiter=",", names=True)
    assert len(table) > 10
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_one_pass_serves_all(frames):
    """Values that went into the trajectory come out; a fiftieth of the resolution is 6 1/cm."""
    vibron, phonon, rotation, diffusion = analyse(
        Trajectory(frames), [Vibron(300.0), E2gPhonon(300.0), Rotation(100.0), Diffusion()]
    )
    assert vibron["total peak"].value == pytest.approx(VIBRON, abs=6.0)
    assert phonon["E2g peak"].value == pytest.approx(E2G, abs=6.0)
    assert rotation["momentum left after it"].value != 0.0
    # MSD of cos(w t) shear, 2 <s^2> (1 - cos(w t)).
    table = diffusion.table("diffusion")
    turn = 2.0 * np.pi * LIGHT * E2G * table["time_ps"][:8] * 1000.0
    assert table["msd_A2"][:8] == pytest.approx(0.03**2 * (1.0 - np.cos(turn)), rel=0.02)


# ---------------------------------------------------------------- refusals


def without_velocities(frames):
    for atoms in frames:
        del atoms.arrays["momenta"]


def lost_atoms(frames):
    del frames[5][-2:]


def broken_bond(frames):
    frames[5].positions[0] += 0.6 * (frames[5].positions[0] - frames[5].positions[1])


def uneven(frames):
    frames[5].info["time_fs"] += 0.4


def few(frames):
    del frames[10:]


SPOILT = {
    "no velocities": (without_velocities, "has no velocities"),
    "atoms lost": (lost_atoms, "has 14 atoms, the first frame 16"),
    "broken bond": (broken_bond, "it broke"),
    "uneven": (uneven, "must be evenly spaced in time"),
    "few": (few, "and there are 10"),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("spoilt", SPOILT)
def test_bad_trajectories_are_one_sentence_and_leave_nothing(name, spoilt, frames, tmp_path):
    spoil, sentence = SPOILT[spoilt]
    copies = [a.copy() for a in frames[:12]]
    spoil(copies)
    write(tmp_path / "run.extxyz", copies)
    result = hmlp(name, tmp_path / "run.extxyz", "-o", tmp_path / "out", *OPTIONS[name])
    if (name, spoilt) == ("diffusion", "no velocities"):
        # It needs none, but more than twelve frames.
        sentence = "at least 17 frames"
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_range_without_a_line_is_refused(path, tmp_path):
    result = hmlp("vibron", path, "-o", tmp_path / "out", "--resolution", 300, "--range", 1e4, 2e4)
    assert result.exit_code == 2 and "wavenumbers" in result.stderr
