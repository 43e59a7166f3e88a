"""Labels on a second, shifted mesh: which frames need them, and what becomes of them."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_hmlp.training.data import complete_meshes as script
from ase_hmlp.training.data.generate_dynamics import write_packed
from ase_hmlp.training.frames import iterate_structures

LABEL = "Quantum ESPRESSO 6.7MaX; PBE; k-points {}; H.pbe-kjpaw.UPF"


def frame(number, points, group="phase-I", split="train", volume=2.0, seed=0, n=12):
    rng = np.random.default_rng(number)
    atoms = Atoms(f"H{n}", rng.random((n, 3)), cell=[(n * volume) ** (1 / 3)] * 3, pbc=True)
    labels = np.random.default_rng([seed, number])
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=-15.0 * n + labels.normal(),
        forces=labels.normal(size=(n, 3)),
        stress=labels.normal(size=6),
    )
    atoms.info = {"group": group, "split": split, "source": f"x/{number}", "pulay": 0.0137}
    if points:
        atoms.info |= {"label": LABEL.format(points), "cpu_seconds": 3.0}
    return atoms


def test_tested_frames_come_first_and_then_the_densest():
    frames = [
        frame(0, "3x3x3"),
        frame(1, "3x3x3", volume=1.7),
        frame(2, "3x3x3", split="test", volume=3.0),
        frame(3, "3x3x3", volume=6.0),
        frame(4, "3x3x3 shifted", group="large"),
        frame(5, "3x3x3 and shifted, mean"),
        frame(6, "3x3x3", group="pair"),
        frame(7, ""),
    ]
    sources = [a.info["source"] for a in script.missing(frames, 3.5)]
    assert sources == ["x/2", "x/1", "x/0", "x/7"]


def test_the_packed_file_gets_the_means_once(tmp_path, capsys):
    path, shifted = tmp_path / "frames.extxyz.xz", tmp_path / "shifted.extxyz"
    mesh = script.mesh_of(frame(9, ""))
    frames = [frame(0, "3x3x3"), frame(1, ""), frame(2, "3x3x3"), frame(3, "4x4x4")]
    write_packed(frames, path)
    others = [frame(k, f"{points} shifted", seed=1) for k, points in enumerate(("3x3x3", mesh))]
    others.append(frame(3, "3x3x3 shifted", seed=1))
    write(shifted, others, format="extxyz")
    assert script.complete(path, shifted) == 2
    assert "x/3: labelled on 4x4x4, shifted on 3x3x3" in capsys.readouterr().out
    got = list(iterate_structures(path))
    for k in (0, 1):
        energies = [a.get_potential_energy() for a in (frames[k], others[k])]
        assert got[k].get_potential_energy() == pytest.approx(np.mean(energies), abs=1e-7)
        forces = np.mean([a.get_forces() for a in (frames[k], others[k])], axis=0)
        assert got[k].get_forces() == pytest.approx(forces, abs=1e-7)
        stress = np.mean([a.get_stress() for a in (frames[k], others[k])], axis=0)
        assert got[k].get_stress() == pytest.approx(stress, abs=1e-7)
        difference = abs(energies[0] - energies[1]) / 2 / 12
        assert got[k].info["mesh_error"] == pytest.approx(difference, abs=1e-6)
        assert " and shifted, mean; H.pbe" in got[k].info["label"]
        assert got[k].info["pulay"] == 0.0137
    assert got[0].info["cpu_seconds"] == 6.0
    for k in (2, 3):
        assert got[k].info["label"] == frames[k].info["label"]
        assert got[k].get_potential_energy() == frames[k].get_potential_energy()
    content = path.read_bytes()
    assert script.complete(path, shifted) == 2  # nothing is averaged again
    assert path.read_bytes() == content
