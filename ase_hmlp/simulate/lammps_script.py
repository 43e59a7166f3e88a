"""Input scripts of LAMMPS for one segment of a run: part of one stage, from one state to the next.

========================  ==========================================================================
nve                       ``fix nve``
nvt, nose-hoover          ``fix nvt``, chains of three, as ASE's
nvt, langevin             ``fix langevin`` and ``fix nve``: its steps are not ASE's BAOAB
nvt, bussi                ``fix temp/csvr`` and ``fix nve``
npt, nose-hoover          ``fix npt``, ``iso`` or ``tri``
========================  ==========================================================================

Characteristic times of thermostats and barostats mean the same as in ASE: both give the thermostat
3 n kT t² and each direction of the cell (n + 1) kT t² of inertia, but ASE moves two numbers of the
cell for a shear where LAMMPS moves one, so that angles have twice the inertia here; and the first
of the barostat's own thermostats has kT t² here and 9 kT t² there. The ensemble is the same.
Thermostats count all 3 n degrees of freedom, which is not LAMMPS's own habit. Ramps are linear,
step by step. The random thermostats get a seed for each segment, because restart files do not hold
their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ase_hmlp.errors import ConfigError
from ase_hmlp.simulate.dynamics import Stage
from ase_hmlp.simulate.integrators import Method, Times

#: bar in a GPa.
BAR_PER_GPA = 1.0e4

#: bar in an eV/Å³, as LAMMPS has it in units metal.
BAR_PER_EV_A3 = 1.6021765e6

#: Margin (Å) of the neighbour lists: the best between 300 and 1000 K, within a few per cent.
SKIN = 0.4

#: What it leaves to start from.
RESTART = "end.restart"

#: What each row of its output has. Conserved is ``econserve`` less ``v_excess``; the six of
#: ``c_virial`` are xx yy zz xy xz yz, bar.
THERMO = (
    "step pe econserve v_excess "
    "c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6] "
    "lx ly lz xy xz yz xlo ylo zlo"
)

#: Columns of snapshots after the ID, by what they are for.
COLUMNS = {
    "atoms": ("xu", "yu", "zu", "vx", "vy", "vz"),
    "forces": ("f_potential[1]", "f_potential[2]", "f_potential[3]"),
    "energies": ("c_energies",),
    "stresses": tuple(f"c_stresses[{k}]" for k in range(1, 7)),
}


@dataclass(frozen=True)
class Segment:
    """Part of one stage.

    Attributes
    ----------
    stage : Stage
    first, last : int
        Steps the stage starts and ends at.
    start, end : int
        Steps this part of it starts and ends at.
    times : Times
    every : int
        Steps between snapshots, on a grid from step 0; there is one at `end` in any case.
    properties : sequence of str
        Keys of `COLUMNS`, in its order, that snapshots have beside "atoms".
    model : str
        Model file of the pair style.
    source : str
        Restart file, or data file at step 0, to start from.
    seed : int
        Of the run.
    drifted : bool
        Whether the centre of mass has a momentum from the stage before, to be taken away.
    """

    stage: Stage
    first: int
    last: int
    start: int
    end: int
    times: Times
    every: int
    properties: Sequence[str]
    model: str
    source: str
    seed: int
    drifted: bool = False

    @property
    def conserves(self) -> bool:
        """Whether there is something that an exact integrator would keep constant."""
        constant = repr(self.stage.start) == repr(self.stage.end)  # NaN is itself
        method = self.stage.method
        return constant and (method.ensemble == "nve" or method.thermostat != "langevin")


def check(method: Method, times: Times, number: int) -> None:
    """Refuse what LAMMPS cannot do.

    Parameters
    ----------
    method : Method
    times : Times
    number : int
        Of the stage, from 1.

    Raises
    ------
    ConfigError
    """
    if method.ensemble == "npt" and method.thermostat != "nose-hoover":
        raise ConfigError(
            f"Stage {number}: engine lammps has npt with nose-hoover only, engine ase with "
            f"{method.thermostat} too."
        )
    if times.bond_steps > 1:
        raise ConfigError(
            "Short steps for bonds (dynamics.bond_steps) need engine ase: engine lammps has none."
        )


def script(segment: Segment) -> str:
    """Write the input script of a segment.

    It leaves snapshots ``frame.STEP.bin``, a row of `THERMO` for each of them, and `RESTART`.

    Parameters
    ----------
    segment : Segment

    Returns
    -------
    str
    """
    if segment.start:
        lines = ["box tilt large", f"read_restart {segment.source}"]
    else:
        lines = [
            "units metal",
            "box tilt large",  # skewed cells are slow; older versions refuse them otherwise
            "atom_style bond",
            "atom_modify map array",
            "special_bonds lj/coul 1 1 1",  # molecules' own bonds are part of the pair style
            "bond_style zero",
            f"read_data {segment.source}",
            "bond_coeff *",
            "pair_style hmlp",
        ]
    lines += [
        f"pair_coeff * * {segment.model} H",
        f"neighbor {SKIN} bin",
        "neigh_modify every 1 delay 0 check yes",
        f"timestep {_picoseconds(segment.times.timestep)}",
        *(["velocity all zero linear"] if segment.drifted else []),
        "compute virial all pressure NULL virial",
        "compute_modify thermo_temp extra/dof 0",
        # Before a thermostat adds forces of its own to those of the potential.
        *(["fix potential all store/force"] if "forces" in segment.properties else []),
        *_fixes(segment),
        f"variable excess equal {_excess(segment.stage.method)}",
        f"thermo_style custom {THERMO}",
        "thermo_modify line one norm no flush yes format float %.17g",
        f"thermo {segment.every}",
    ]
    columns = list(COLUMNS["atoms"])
    for name, kind in (("energies", "pe/atom"), ("stresses", "stress/atom NULL virial")):
        if name in segment.properties:
            lines.append(f"compute {name} all {kind}")
    for name in segment.properties:
        columns += COLUMNS[name]
    words = f"frame.*.bin id {' '.join(columns)}"
    lines.append(f"dump frames all custom {segment.every} {words}")
    if segment.end % segment.every:
        lines.append(f"dump end all custom {segment.end} {words}")
    lines += [
        f"run {segment.end - segment.start} start {segment.first} stop {segment.last}",
        f"write_restart {RESTART}",
    ]
    return "\n".join(lines) + "\n"


def _fixes(segment: Segment) -> list[str]:
    """What moves the atoms; names of fixes say what may take over the state in a restart file."""
    method, times = segment.stage.method, segment.times
    if method.ensemble == "nve":
        return ["fix nve all nve"]
    first, last = segment.stage.start, segment.stage.end
    damping = _picoseconds(times.thermostat_time)
    heat = f"{first.temperature!r} {last.temperature!r} {damping}"
    if method.ensemble == "npt":
        name, kind = f"npt_{method.cell}", "iso" if method.cell == "iso" else "tri"
        ends = " ".join(repr(p * BAR_PER_GPA) for p in (first.pressure, last.pressure))
        pressure = f"{kind} {ends} {_picoseconds(times.barostat_time)}"
        # A box that flips is another description of the same lattice: cells would jump.
        fix = f"fix {name} all npt temp {heat} {pressure} flip no"
        return [fix, f"compute_modify {name}_temp extra/dof 0"]
    if method.thermostat == "nose-hoover":
        return [f"fix nvt all nvt temp {heat}", "compute_modify nvt_temp extra/dof 0"]
    seed = np.random.SeedSequence([segment.seed, 3, segment.start]).generate_state(1)[0]
    noise = int(seed) % 900_000_000 + 1
    if method.thermostat == "langevin":
        return ["fix nve all nve", f"fix langevin all langevin {heat} {noise}"]
    name = f"bussi_{segment.start}"
    return [
        "fix nve all nve",
        f"fix {name} all temp/csvr {heat} {noise}",
        f"compute_modify {name}_temp extra/dof 0",
    ]


def _excess(method: Method) -> str:
    """What LAMMPS's `econserve` has too much of, eV, in LAMMPS's words."""
    if method.ensemble == "npt" and method.cell == "iso":
        # There it counts the barostat as three degrees of freedom, and as one in the dynamics: 3 kT
        # for every kT of potential energy of its thermostat, which is the fix's 23rd number.
        return "2*f_npt_iso[23]"
    return "0"


def _picoseconds(femtoseconds: float) -> str:
    return repr(femtoseconds / 1000.0)


def stress_of(virial: ArrayLike, rotation: np.ndarray) -> np.ndarray:
    """Stress (eV/Å³, tensile positive, xx yy zz yz xz xy) of the structure before it was turned.

    Parameters
    ----------
    virial : (..., 6) pressures, bar, in LAMMPS's order
    rotation : (3, 3) array
        Vectors of the structure times it are LAMMPS's.
    """
    xx, yy, zz, xy, xz, yz = np.moveaxis(np.asarray(virial), -1, 0)
    tensor = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1)
    tensor = tensor.reshape((*tensor.shape[:-1], 3, 3))
    turned = -(rotation @ tensor @ rotation.T) / BAR_PER_EV_A3
    return turned[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
