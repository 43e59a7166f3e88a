"""Pair style hmlp in LAMMPS: parity with the calculator, dynamics, restarts, errors, the plugin."""

import dataclasses
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import lammps_runs
import numpy as np
import pytest
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.verlet import VelocityVerlet
from lammps_runs import RESULTS, SETUP, boundary, evaluate, lammps, read
from strategies import build_structure
from toy_models import (
    ENVIRONMENT_BASIS,
    ORIENTATION_BASIS,
    OVERLAP_BASIS,
    dimer,
    from_molecules,
    hcp,
    molecule,
    pa3,
    toy_potential,
)

from ase_hmlp import HMLP
from ase_hmlp.errors import PluginError
from ase_hmlp.lammps import plugin
from ase_hmlp.lammps.export import SCHEMA, write_data, write_model
from ase_hmlp.model_io import Domain, Model, load_model

try:
    plugin.build()
    MISSING = ""
except PluginError as error:
    MISSING = str(error)

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"pair style hmlp: {MISSING}"),
    pytest.mark.filterwarnings("ignore::ase_hmlp.errors.DomainWarning"),
]

MODEL = "h2-pbe"

ENERGY, FORCE, STRESS = 1e-10, 1e-9, 1e-10  # eV per atom, eV/Å, eV/Å³


def hot(size, volume=2.6, seed=1, strain=0.04, rattle=0.04):
    """Strained, triclinic and hot."""
    atoms = hcp(volume, size, seed=seed, bond_spread=0.03)
    deformation = np.eye(3) + strain * np.random.default_rng(seed).uniform(-1, 1, (3, 3))
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.rattle(rattle, seed=seed)
    return atoms


def scattered(seed, molecules, skew=(), pbc=(True, True, True)):
    """Random molecules, atoms in random order and outside the cell."""
    s = build_structure(seed, molecules, 3.2, skew, pbc, scatter=True)
    return Atoms(f"H{len(s)}", s.positions, cell=s.cell, pbc=pbc)


def structures():
    """From one molecule a cell, smaller than the cutoff, to several times as wide."""
    left = hot((2, 2, 2), seed=6)
    left.set_cell(left.cell.array * [1, 1, -1], scale_atoms=True)
    return {
        "hot": hot((4, 4, 3)),
        "dense": hot((3, 3, 2), 2.2, seed=2, strain=0.08, rattle=0.03),
        "left-handed": left,
        "pa3": pa3(3.2),
        "tiny": hot((1, 1, 1), 3.2, seed=5, rattle=0.02),
        "scattered": scattered(0, 8),
        "skewed": scattered(1, 4, [(0, 1, 1)]),
        "one": scattered(3, 1),
        "slab": scattered(9, 8, pbc=(True, True, False)),
        "dimer": dimer(2.6),
        "molecule": molecule(),
    }


def assert_parity(result, atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    n = len(atoms)
    assert result.energy / n == pytest.approx(atoms.get_potential_energy() / n, abs=ENERGY, rel=0)
    np.testing.assert_allclose(result.energies, atoms.get_potential_energies(), rtol=0, atol=ENERGY)
    assert result.sum_of_energies == pytest.approx(result.energy, abs=n * ENERGY, rel=0)
    np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=FORCE)
    if atoms.cell.rank == 3 and atoms.pbc.all():
        volume = atoms.get_volume()
        np.testing.assert_allclose(result.stress, atoms.get_stress(), rtol=0, atol=STRESS)
        np.testing.assert_allclose(
            result.virials, atoms.get_stresses() * volume, rtol=0, atol=volume * STRESS
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The shipped model as LAMMPS reads it."""
    return write_model(MODEL, tmp_path_factory.mktemp("model") / "h2-pbe.hmlp")


@pytest.fixture(scope="module")
def domain():
    """What the shipped model was trained on."""
    return load_model(MODEL).domain


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_parity(tmp_path, model, ranks):
    chosen = structures()
    if ranks == 3:  # more processes than cores: slow
        chosen = {name: chosen[name] for name in ("hot", "tiny", "scattered", "molecule")}
    for name, result in evaluate(tmp_path, chosen, model, ranks).items():
        try:
            assert_parity(result, chosen[name], HMLP(MODEL))
        except AssertionError as error:
            raise AssertionError(f"{name} on {ranks} ranks: {error}") from None


def test_parity_of_tiled_processes(tmp_path, model):
    """Processes of unequal size and unequal neighbours."""
    atoms = {"hot": hot((4, 4, 3))}
    setup = SETUP.replace("bond_style zero", "comm_style tiled\nbond_style zero")
    result = evaluate(tmp_path, atoms, model, 2, setup + "balance 1.0 rcb\n")["hot"]
    assert_parity(result, atoms["hot"], HMLP(MODEL))


TOY_DOMAIN = Domain((1, 20), (0, 300), (0.6, 0.9), (0.4, 1.2), 1.0, 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"bond": "morse"},
        {"pair": False},
        {"orientation": False},
        {"environment": False},
        {"pair": False, "orientation": False, "environment": False},
        {"stretch_width": 0.0},
        {"environment_basis": dataclasses.replace(ENVIRONMENT_BASIS, cutoff=5.0)},
        {"orientation_basis": dataclasses.replace(ORIENTATION_BASIS, cutoff=5.0)},
        {"overlap": None},
        {"overlap": dataclasses.replace(OVERLAP_BASIS, reach=5.0)},
    ],
    ids=[
        "morse",
        "no-pair",
        "no-orientation",
        "no-environment",
        "bonds",
        "rigid",
        "far-environment",
        "far-orientation",
        "no-overlap",
        "far-overlap",
    ],
)
def test_parity_of_other_models(tmp_path, options):
    """Levels may be missing, cutoffs differ, bonds be Morse's."""
    toy = Model(toy_potential(**options), TOY_DOMAIN)
    path = write_model(toy, tmp_path / "toy.hmlp")
    atoms = {"hot": hot((2, 2, 2), 3.2, strain=0.1), "stretched": stretched(0.07)}
    for name, result in evaluate(tmp_path, atoms, path).items():
        assert_parity(result, atoms[name], HMLP(toy))


@pytest.mark.parametrize("ranks, reach", [(2, 3.2), (3, 3.2), (2, 4.8)])
def test_sums_over_neighbours_go_home_and_their_derivatives_come_back(tmp_path, ranks, reach):
    """The environment level alone, on molecules that straddle the faces of processes.

    Clusters may reach farther than pairs.
    """
    overlap = dataclasses.replace(OVERLAP_BASIS, reach=reach)
    toy = Model(toy_potential(pair=False, orientation=False, overlap=overlap), TOY_DOMAIN)
    path = write_model(toy, tmp_path / "toy.hmlp")
    atoms = {"hot": hot((3, 3, 2), 3.2, strain=0.1, rattle=0.06), "scattered": scattered(0, 8)}
    if ranks == 2:
        atoms["tiny"] = hot((1, 1, 1), 3.2, seed=5, rattle=0.02)
    for name, result in evaluate(tmp_path, atoms, path, ranks).items():
        calculator = HMLP(toy)
        assert_parity(result, atoms[name], calculator)
        # Far more than what parity allows; molecules' shares are of both signs.
        assert abs(calculator.levels["environment"]) > 1e-3
        assert abs(result.forces).max() > 0.01


def stretched(by):
    """Bonds longer and shorter than the levels follow: held at their ends."""
    atoms = hcp(3.2, (2, 2, 1), seed=7)
    ends = atoms.positions.reshape(-1, 2, 3)
    middle = ends.mean(axis=1, keepdims=True)
    factor = 1.0 + np.where(np.arange(len(ends)) % 2, 2.5 * by, -2.0 * by)
    atoms.positions = (middle + factor[:, None, None] * (ends - middle)).reshape(-1, 3)
    return atoms


def test_special_bonds_do_not_matter(tmp_path, model):
    atoms = {"tiny": hot((1, 2, 1), 3.2, rattle=0.02)}
    for words in ("lj/coul 0 0 0", "lj/coul 0.5 0.5 0.5", "lj 0 0 1 coul 1 1 1"):
        setup = SETUP.replace("lj/coul 1 1 1", words)
        result = evaluate(tmp_path, atoms, model, setup=setup)["tiny"]
        assert_parity(result, atoms["tiny"], HMLP(MODEL))


# ---------------------------------------------------------------- beside other pair styles

#: A smooth one, for it acts between bonded atoms, too.
OTHER = "pair_coeff * * gauss 0.5 1.0\n"


def beside(words, style="hybrid/overlay"):
    """Set-up with other pair styles, their coefficients to be added."""
    setup = SETUP.replace("pair_style hmlp", f"pair_style {style} hmlp {words}")
    return setup.replace("* * {model} H", "* * hmlp {model} H")


@pytest.mark.parametrize("ranks", [1, 2])
def test_hybrid(tmp_path, model, ranks):
    """As part of pair style hybrid or hybrid/overlay nothing changes; other energies are added."""
    atoms = {"hot": hot((4, 4, 3)), "tiny": hot((1, 1, 1), 3.2, seed=5, rattle=0.02)}
    zero = beside("zero 4.0") + "pair_coeff * * zero\n"
    for setup in (beside("", "hybrid"), zero):
        for name, result in evaluate(tmp_path, atoms, model, ranks, setup).items():
            assert_parity(result, atoms[name], HMLP(MODEL))
    alone = SETUP.replace("pair_style hmlp", "pair_style hybrid/overlay gauss 4.0")
    alone = alone.replace("pair_coeff * * {model} H\n", OTHER)
    both = evaluate(tmp_path, atoms, model, ranks, beside("gauss 4.0") + OTHER)
    others = evaluate(tmp_path, atoms, model, 1, alone)
    for name, result in both.items():
        other = others[name]
        assert abs(other.energy) > 1.0 and abs(other.forces).max() > 0.01
        differences = {
            field.name: getattr(result, field.name) - getattr(other, field.name)
            for field in dataclasses.fields(result)
        }
        assert_parity(dataclasses.replace(result, **differences), atoms[name], HMLP(MODEL))


def test_hybrid_leaves_no_pairs_to_others(tmp_path, model):
    setup = beside("zero 4.0", "hybrid") + "pair_coeff 1 2 zero\n"
    done = lammps(
        tmp_path, start(tmp_path, warm(mixed=True), model, setup=setup) + "run 0\n", check=False
    )
    assert_one_error(done, "Pair style hmlp needs the pairs of all atom types")


def test_restart_of_hybrid(tmp_path, model):
    """Coefficients have to be given again; the communication cutoff is ours to change."""
    setup = beside("gauss 4.0").replace("neighbor 0.4 bin\n", "") + OTHER
    run = start(tmp_path, warm(), model, setup=setup)
    lammps(tmp_path, run + RUN.format(2) + "write_restart a.restart\n" + RESULTS.format(name="one"))
    coefficients = f"pair_coeff * * hmlp {model} H\n" + OTHER
    for skin in ("", "neighbor 2.5 bin\n"):
        again = "read_restart a.restart\n" + coefficients + skin + RESULTS.format(name="two")
        lammps(tmp_path, again)
        one, two = (read(tmp_path, name, np.eye(3)) for name in ("one", "two"))
        np.testing.assert_allclose(one.forces, two.forces, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- dynamics


def warm(seed=0, temperature=300.0, size=(3, 3, 2), mixed=False):
    """A crystal with velocities; of H2, D2 and HD if `mixed`."""
    atoms = hcp(2.6, size, seed=3)
    if mixed:
        masses = atoms.get_masses()
        masses[: len(atoms) // 3] = 2.014
        masses[len(atoms) // 3 :: 4] = 2.014
        atoms.set_masses(masses)
    rng = np.random.default_rng(seed)
    scale = np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(scale * rng.normal(size=(len(atoms), 3)))
    return atoms


def final(folder, rotation, name="end"):
    """Structure LAMMPS ended with, in its own orientation, and its results there."""
    text = (folder / f"{name}.cell").read_text().split()
    lx, ly, lz, xy, xz, yz = (float(x) for x in text)
    rows = np.loadtxt(folder / f"{name}.dump", skiprows=9)
    atoms = Atoms(
        f"H{len(rows)}", rows[:, 4:7], cell=[[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]], pbc=True
    )
    return atoms, read(folder, name, rotation)


CELL = 'print "$(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)" file {}\n'


def start(folder, atoms, model, name="start", setup=SETUP):
    """Set-up of an input script."""
    write_data(atoms, folder / f"{name}.data")
    return setup.format(boundary=boundary(atoms), data=f"{name}.data", model=model)


def test_nve_follows_ase(tmp_path, model):
    """Masses of H, D and HD, velocities, and fifty steps: the same trajectory."""
    atoms = warm(mixed=True)
    data = write_data(atoms, tmp_path / "start.data")
    assert data.masses == (1.008, 2.014)
    run = start(tmp_path, atoms, model) + "timestep 0.0005\nfix nve all nve\nrun 50\nunfix nve\n"
    lammps(tmp_path, run + CELL.format("end.cell") + RESULTS.format(name="end"), 2)
    ended, result = final(tmp_path, data.rotation)
    atoms.calc = HMLP(MODEL)
    VelocityVerlet(atoms, 0.5 * units.fs).run(50)
    difference = ended.positions @ data.rotation.T - atoms.positions
    fractional = np.linalg.solve(atoms.cell.T, difference.T).T
    difference = (fractional - np.round(fractional)) @ atoms.cell
    # LAMMPS's mass unit differs from ASE's in the sixth digit.
    assert abs(difference).max() < 2e-5
    assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-3)


def test_nve_conserves_energy(tmp_path, model):
    """1,000 steps at 300 K; the skin is thin, so that lists are made anew many times."""
    run = start(tmp_path, warm(size=(3, 2, 2)), model).replace("neighbor 0.4", "neighbor 0.2")
    run += """
timestep 0.00025
neigh_modify every 1 delay 0 check yes
fix nve all nve
variable total equal etotal
fix log all ave/time 1 50 50 v_total file total.txt format ' %.12g'
thermo 1000
run 1000
"""
    done = lammps(tmp_path, run)
    total = np.loadtxt(tmp_path / "total.txt")[:, 1]
    slope = np.polyfit(np.linspace(0, 0.25, len(total)), total, 1)[0] / 48
    assert abs(slope) < 2e-4  # eV/atom/ps
    assert np.ptp(total) / 48 < 2e-4
    assert "Dangerous builds = 0" in done.stdout
    assert int(done.stdout.split("Neighbor list builds =")[1].split()[0]) > 5


@pytest.mark.parametrize("ensemble", ["iso", "aniso", "tri"])
def test_npt(tmp_path, model, ensemble):
    """Where the box has changed, everything still is what the calculator says."""
    words = {"iso": "iso 1e6 1e6 0.5", "aniso": "aniso 1e6 1e6 0.5", "tri": "tri 1e6 1e6 0.5"}
    run = (
        start(tmp_path, warm(), model)
        + f"""
timestep 0.0005
fix npt all npt temp 300 300 0.05 {words[ensemble]}
run 150
unfix npt
"""
    )
    lammps(tmp_path, run + CELL.format("end.cell") + RESULTS.format(name="end"))
    ended, result = final(tmp_path, np.eye(3))
    lengths = warm().cell.lengths() / ended.cell.lengths()
    assert abs(lengths - 1.0).max() > 1e-3
    assert (np.ptp(lengths) < 1e-9) == (ensemble == "iso")
    assert_parity(result, ended, HMLP(MODEL))


def test_minimisation(tmp_path, model):
    atoms = hot((2, 2, 2), seed=4)
    run = start(tmp_path, atoms, model) + "fix box all box/relax tri 1e6 vmax 0.002\n"
    run += "minimize 0 1e-4 500 2000\nunfix box\nminimize 0 1e-6 500 2000\n"
    lammps(tmp_path, run + CELL.format("end.cell") + RESULTS.format(name="end"))
    ended, result = final(tmp_path, np.eye(3))
    assert_parity(result, ended, HMLP(MODEL))
    assert abs(result.forces).max() < 1e-3


# ---------------------------------------------------------------- restart

RUN = "timestep 0.0005\nfix nve all nve\nrun {}\n"


def test_restart_continues(tmp_path, model):
    """The model's file is in the restart: no pair_coeff; a stop changes nothing but rounding."""
    through = start(tmp_path, warm(), model) + RUN.format(20) + "write_restart half.restart\n"
    through += "run 20\nunfix nve\n" + RESULTS.format(name="through")
    lammps(tmp_path, through)
    again = "read_restart half.restart\nneighbor 0.4 bin\n" + RUN.format(20)
    lammps(tmp_path, again + "unfix nve\n" + RESULTS.format(name="again"), 2)
    one, two = (read(tmp_path, name, np.eye(3)) for name in ("through", "again"))
    np.testing.assert_allclose(one.forces, two.forces, rtol=0, atol=1e-7)
    assert one.energy == pytest.approx(two.energy, abs=1e-8)


def test_restart_elsewhere(tmp_path, model):
    """A restart whose model is elsewhere takes pair_coeff; one whose model changed is refused."""
    shutil.copy(model, tmp_path / "here.hmlp")
    lammps(tmp_path, start(tmp_path, warm(), "here.hmlp") + "run 0\nwrite_restart a.restart\n")
    (tmp_path / "here.hmlp").unlink()
    without_volume(model, tmp_path / "older.hmlp").rename(tmp_path / "here.hmlp")
    done = lammps(tmp_path, "read_restart a.restart\nrun 0\n")  # of the same energies
    (tmp_path / "here.hmlp").unlink()
    done = lammps(tmp_path, f"read_restart a.restart\npair_coeff * * {model} H\nrun 0\n")
    assert "here.hmlp of the restart is not here" in done.stdout
    write_model(Model(toy_potential(), TOY_DOMAIN), tmp_path / "here.hmlp")
    done = lammps(tmp_path, "read_restart a.restart\nrun 0\n", check=False)
    assert_one_error(done, "here.hmlp is not the one that the restart was written with")


# ---------------------------------------------------------------- errors


def assert_one_error(done, sentence):
    assert done.returncode != 0
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, done.stdout[-2000:]
    assert sentence in " ".join(done.stdout.split()), errors


def edited(old, new):
    return lambda setup, folder: setup.replace(old, new)


def without_bond(setup, folder):
    """Atoms 1 and 2 are not bonded."""
    text = (folder / "start.data").read_text()
    (folder / "start.data").write_text(
        text.replace("\n1 1 1 2\n", "\n").replace("36 bonds", "35 bonds")
    )
    return setup


def with_second_bond(setup, folder):
    text = (folder / "start.data").read_text()
    text = text.replace("36 bonds", "37 bonds").rstrip() + "\n37 1 1 3\n"
    (folder / "start.data").write_text(text)
    return setup.replace("read_data start.data", "read_data start.data extra/special/per/atom 4")


ERRORS = {
    "newton": (edited("newton on", "newton off"), "needs newton on"),
    "units": (edited("units metal", "units real"), "needs units metal, not real"),
    "atom-style": (
        lambda setup, folder: (
            "units metal\natom_modify map array\nlattice fcc 4\n"
            "region box block 0 3 0 3 0 3\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 1\n"
            + setup[setup.index("pair_style") :]
        ),
        "needs an atom style with bonds, such as bond or full, not atomic",
    ),
    "no-bond": (without_bond, "has no bonds: pair style hmlp needs one"),
    "two-bonds": (with_second_bond, "has 2 bonds: pair style hmlp needs one"),
    "missing-partner": (
        edited(
            "pair_style",
            "thermo_modify lost/bond ignore\ngroup gone id 2\ndelete_atoms group gone\npair_style",
        ),
        "Atom 1 is bonded to atom 2, which is missing or far away",
    ),
    "broken-bond": (
        edited("pair_style", "group one id 1\ndisplace_atoms one move 1.1 1.1 1.1\npair_style"),
        "A long; energies of pair style hmlp mean something from {bond_limits[0]:.3f} to "
        "{bond_limits[1]:.3f} A",
    ),
    "cutoff": (
        edited("pair_style", "comm_modify cutoff 3.1\npair_style"),
        "Communication cutoff 3.1 is shorter than the {reach:.4f} that pair style hmlp needs: "
        "comm_modify cutoff {reach_up:.2f}",
    ),
    "comm-mode": (
        edited("pair_style", "neighbor 0.4 multi\ncomm_modify mode multi\npair_style"),
        "mode single",
    ),
    "element": (edited("MODEL H", "MODEL He"), "knows the elements H, D and T only, not He"),
    "elements": (edited("MODEL H", "MODEL H H D"), "one element, or one for each of 1 types"),
    "arguments": (edited("pair_style hmlp", "pair_style hmlp 5.0"), "takes no arguments"),
    "no-coeff": (edited("pair_coeff * * MODEL H", ""), "ll pair coeffs are not set"),
    "no-file": (edited("MODEL", "nothing.hmlp"), "nothing.hmlp of pair style hmlp cannot be read"),
    "folder": (edited("MODEL", "/"), "Model file / of pair style hmlp cannot be read"),
    "truncated": (edited("MODEL", "truncated.hmlp"), "truncated.hmlp is truncated"),
    "header-only": (edited("MODEL", "header.hmlp"), "header.hmlp is truncated"),
    "damaged": (edited("MODEL", "damaged.hmlp"), "is damaged: its checksum does not match"),
    "foreign": (edited("MODEL", "foreign.hmlp"), "is not a model file of pair style hmlp"),
    "empty": (edited("MODEL", "empty.hmlp"), "is not a model file of pair style hmlp"),
    "schema": (
        edited("MODEL", "schema.hmlp"),
        f"has schema {SCHEMA + 1} but this pair style reads schema {SCHEMA}: export it again",
    ),
    "old-schema": (
        edited("MODEL", "old.hmlp"),
        f"has schema {SCHEMA - 1} but this pair style reads schema {SCHEMA}: export it again",
    ),
    "other-kernel": (
        edited("MODEL", "kernel.hmlp"),
        "was written for another version of the kernel: export it again",
    ),
    "lacks-record": (edited("MODEL", "lacks.hmlp"), "lacks the record interaction.stretch"),
    "short-record": (
        edited("MODEL", "short.hmlp"),
        "numbers in the record interaction.centres.intervals instead of",
    ),
    "overlap": (
        edited("MODEL", "overlap.hmlp"),
        "has an impossible value of interaction.overlap",
    ),
    "short-overlap": (
        edited("MODEL", "apart.hmlp"),
        "has an impossible table of interaction.overlap.orbitals",
    ),
    "short-table": (
        edited("MODEL", "reach.hmlp"),
        "has an impossible table of interaction.atoms",
    ),
}


@pytest.fixture(scope="module")
def bad_files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    content = model.read_bytes()
    body = content.index(b"\n", content.index(b"\n") + 1) + 1
    (folder / "truncated.hmlp").write_bytes(content[:-100])
    (folder / "header.hmlp").write_bytes(content[:20])
    at = body + 5000
    other = b"8" if content[at : at + 1] == b"7" else b"7"
    (folder / "damaged.hmlp").write_bytes(content[:at] + other + content[at + 1 :])
    (folder / "foreign.hmlp").write_bytes(b"# a spline table\n" + content[:100])
    (folder / "empty.hmlp").write_bytes(b"")
    for name, schema in (("schema", SCHEMA + 1), ("old", SCHEMA - 1)):
        other = content.replace(f"hmlp-lammps {SCHEMA}".encode(), f"hmlp-lammps {schema}".encode())
        (folder / f"{name}.hmlp").write_bytes(other)
    records = dict(line.split(b" ", 1) for line in content[body:].splitlines())
    intervals = records[b"interaction.centres.intervals"]
    count, numbers = intervals.split(b" ", 1)
    for name, changes in {
        "kernel": {b"fingerprints": b"1 53"},
        "lacks": {b"interaction.stretch": None},
        "short": {
            b"interaction.centres.intervals": b"%d " % (int(count) - 1) + numbers.rsplit(b" ", 1)[0]
        },
        "reach": {b"interaction.atoms.spacing": b"1 0.001"},
        "overlap": {b"interaction.overlap": b"6 2.0 0.6 0.8 3.0 3.5 0.05"},
        "apart": {b"interaction.overlap.orbitals.spacing": b"1 0.001"},
    }.items():
        changed = {k: v for k, v in (records | changes).items() if v is not None}
        new = b"".join(k + b" " + v + b"\n" for k, v in changed.items())
        write_body(folder / f"{name}.hmlp", new)
    return folder


def write_body(path, body):
    """A model file of these records."""
    header = f"hmlp-lammps {SCHEMA}\nbytes {len(body)} crc32 {zlib.crc32(body):08x}\n"
    path.write_bytes(header.encode() + body)
    return path


def without_volume(model, path):
    """The model file as it was before it had the range of volumes, its last record."""
    body = model.read_bytes().split(b"\n", 2)[2]
    assert body.splitlines()[-1].startswith(b"volume 2 ")
    return write_body(path, body[: body.rindex(b"volume ")])


@pytest.mark.parametrize("case", ERRORS)
def test_error(tmp_path, model, domain, bad_files, case):
    change, sentence = ERRORS[case]
    # First atoms of molecules in touch, the longest bond apart, and the skin of the list.
    reach = load_model(MODEL).potential.cutoff + domain.bond_limits[1] + 0.4
    reach_up = np.ceil(100.0 * reach) / 100.0
    sentence = sentence.format(bond_limits=domain.bond_limits, reach=reach, reach_up=reach_up)
    setup = change(start(tmp_path, hcp(2.6, (3, 3, 2), seed=3), "MODEL"), tmp_path)
    for name in bad_files.iterdir():
        setup = setup.replace(f" {name.name} ", f" {name} ")
    setup = setup.replace("MODEL", str(model))
    assert_one_error(lammps(tmp_path, setup + "run 0\n", check=False), sentence)


def test_bond_that_breaks_on_the_way(tmp_path, model):
    """On two ranks the one that sees it stops both."""
    run = start(tmp_path, warm(), model) + "group one id 1\nvelocity one set 2000 0 0\n"
    done = lammps(tmp_path, run + RUN.format(50), 2, check=False)
    assert done.returncode != 0
    # Whoever aborts may take the last lines on their way to the terminal along.
    log = (tmp_path / "log.lammps").read_text() + done.stdout
    assert "The bond between atoms 1 and 2 is" in log


def test_contact(tmp_path, model, domain):
    atoms = from_molecules(np.diag([0.0, 0.45, 0.0])[:2], np.eye(3)[[2, 2]])
    write_data(atoms, tmp_path / "start.data", bonds=[[0, 1], [2, 3]])
    setup = SETUP.format(boundary="f f f", data="start.data", model=model)
    done = lammps(tmp_path, setup + "run 0\n", check=False)
    sentence = f"are 0.450 A apart; below {domain.contact_limit:.3f} A energies of pair style hmlp"
    assert domain.contact_limit > 0.45
    assert_one_error(done, sentence)


def test_contact_closer_than_any_in_the_training_data(tmp_path, model, domain):
    """One warning, with both atoms, whichever of their molecules comes first."""
    gap = 0.5 * (domain.contact + domain.contact_limit)
    atoms = from_molecules(np.array([[0.0, 0, 0], [0, gap, 0.74]]), np.eye(3)[[2, 2]])
    write_data(atoms, tmp_path / "start.data", bonds=[[0, 1], [2, 3]])
    setup = SETUP.format(boundary="f f f", data="start.data", model=model)
    done = lammps(tmp_path, setup + "run 0\nrun 0\n")
    sentence = (
        f"are {gap:.3f} A apart; the training data of pair style hmlp have {domain.contact:.3f} A"
    )
    assert done.stdout.count(sentence) == 1
    # The second atom of the first molecule is level with the first of the second.
    assert "Atoms 2 and 3 of different" in done.stdout or "Atoms 3 and 2 of" in done.stdout


def warnings_of(done):
    return [line for line in done.stdout.splitlines() if "WARNING" in line and "hmlp" in line]


@pytest.mark.parametrize("factor", [0.97, 1.5])
def test_warning_of_the_volume(tmp_path, model, domain, factor):
    """One, of boxes that are periodic in three directions; none of files without the range."""
    volume = domain.volume[0 if factor < 1.0 else 1] * factor
    write_data(hcp(volume, (3, 3, 2), seed=3), tmp_path / "start.data")
    setup = SETUP.format(boundary="p p p", data="start.data", model="MODEL") + "run 0\nrun 0\n"
    low, high = domain.volume
    sentence = f"The volume is {volume:.3f} A^3 per atom; the training data of pair style hmlp have"
    done = lammps(tmp_path, setup.replace("MODEL", str(model)), 2)
    (warning,) = (line for line in warnings_of(done) if "volume" in line)
    assert f"{sentence} {low:.3f} to {high:.3f} A^3" in warning
    without_volume(model, tmp_path / "old.hmlp")
    done = lammps(tmp_path, setup.replace("MODEL", "old.hmlp"))
    assert not [line for line in warnings_of(done) if "volume" in line]


def test_no_warning_of_the_volume_of_a_slab(tmp_path, model):
    slab = scattered(9, 8, pbc=(True, True, False))
    write_data(slab, tmp_path / "start.data")
    text = SETUP.format(boundary=boundary(slab), data="start.data", model=model)
    done = lammps(tmp_path, text + "run 0\n")
    assert warnings_of(done) == []


def test_no_warning_of_what_is_fine(tmp_path, model):
    """One process, two runs; bond styles without energies."""
    for style in ("zero", "none", "hybrid zero"):
        setup = SETUP.replace("bond_style zero", f"bond_style {style}")
        setup = setup.replace(
            "bond_coeff *\n",
            {"zero": "bond_coeff *\n", "none": ""}.get(style, "bond_coeff * zero\n"),
        )
        run = start(tmp_path, hcp(2.6, (3, 3, 2), seed=3), model, setup=setup)
        assert warnings_of(lammps(tmp_path, run + "run 0\nrun 0\n")) == []


@pytest.mark.parametrize("style", ["harmonic", "hybrid harmonic"])
def test_warning_of_bonds_that_count_twice(tmp_path, model, style):
    of_hybrid = "harmonic " if "hybrid" in style else ""
    setup = SETUP.replace("bond_style zero", f"bond_style {style}")
    setup = setup.replace("bond_coeff *\n", f"bond_coeff * {of_hybrid}1.0 0.74\n")
    run = start(tmp_path, hcp(2.6, (3, 3, 2), seed=3), model, setup=setup)
    (warning,) = warnings_of(lammps(tmp_path, run + "run 0\nrun 0\n", 2))
    assert "Bond style harmonic counts the energy of the bonds twice" in warning


@pytest.mark.parametrize("words", ["molecule/intra all", "type 1 1", "group all all"])
def test_warning_of_exclusions(tmp_path, model, words):
    run = start(tmp_path, hcp(2.6, (3, 3, 2), seed=3), model)
    run += f"run 0\nneigh_modify exclude {words}\nrun 0\nrun 0\n"
    (warning,) = warnings_of(lammps(tmp_path, run, 2))
    assert "lacks what neigh_modify exclude takes away" in warning


def test_model_file_among_the_potentials_of_lammps(tmp_path, model):
    """Looked for here first, and in $LAMMPS_POTENTIALS; by a restart as well."""
    (tmp_path / "potentials").mkdir()
    shutil.copy(model, tmp_path / "potentials" / "far.hmlp")
    env = {"LAMMPS_POTENTIALS": str(tmp_path / "potentials")}
    run = start(tmp_path, warm(), "far.hmlp") + "run 0\nwrite_restart a.restart\n"
    lammps(tmp_path, run, env=env)
    done = lammps(tmp_path, "read_restart a.restart\nrun 0\n", env=env)
    assert "of the restart is not here" not in done.stdout
    done = lammps(tmp_path, run, check=False)
    assert_one_error(done, "Model file far.hmlp of pair style hmlp cannot be read")


def test_warning_outside_the_training_data(tmp_path, model, domain):
    low, high = domain.bond_length
    atoms = molecule(0.5 * (high + domain.bond_limits[1]))
    # Longer than any that are found by themselves.
    write_data(atoms, tmp_path / "start.data", bonds=[[0, 1]])
    setup = SETUP.format(boundary="f f f", data="start.data", model=model)
    done = lammps(tmp_path, setup + "run 0\nrun 0\n")
    sentence = f"A long; the training data of pair style hmlp have {low:.3f} to {high:.3f} A"
    assert done.stdout.count(sentence) == 1


# ---------------------------------------------------------------- files and command line


def hmlp(*arguments, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "ase_hmlp.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_command_line_writes_what_lammps_needs(tmp_path):
    """The README's steps, end to end, without a `plugin load` line."""
    atoms = hot((2, 2, 2), 3.2, seed=8)
    atoms.write(tmp_path / "crystal.extxyz")
    done = hmlp("export", "lammps", MODEL, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "h2-pbe.hmlp"), done.stderr
    done = hmlp("export", "data", "crystal.extxyz", "--repeat", 1, 1, 2, cwd=tmp_path)
    assert done.stdout.strip() == "crystal.data (atom types: 1 of 1.008 u)", done.stderr
    setup = SETUP.format(boundary="p p p", data="crystal.data", model="h2-pbe.hmlp")
    lammps(tmp_path, setup + RESULTS.format(name="crystal"))
    energy = read(tmp_path, "crystal", np.eye(3)).energy
    atoms.calc = HMLP(MODEL)
    assert energy == pytest.approx(2 * atoms.get_potential_energy(), abs=1e-6)  # extxyz rounds


def test_readme_input_runs(tmp_path, model):
    """The README's input script, shortened."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    script = readme.split("with this `in.hydrogen`:\n\n```\n")[1].split("```")[0]
    shutil.copy(model, tmp_path / "h2-pbe.hmlp")
    atoms = hcp(2.4, (3, 3, 2), seed=3)
    atoms.wrap()
    write_data(atoms, tmp_path / "hydrogen.data")
    assert "run 1000\n" in script
    done = lammps(tmp_path, script.replace("run 1000\n", "run 5\n"))
    warnings = [line for line in done.stdout.splitlines() if "WARNING" in line]
    assert [line for line in warnings if "box skew" not in line] == []


def test_mass_types(tmp_path):
    """One atom type a mass, whatever the order of the atoms."""
    atoms = hcp(2.6, (1, 1, 1))
    atoms.set_masses([2.014, 1.008, 3.016, 2.014])
    assert write_data(atoms, tmp_path / "a.data").masses == (1.008, 2.014, 3.016)
    lines = (tmp_path / "a.data").read_text().split("Atoms # bond\n\n")[1].splitlines()[:4]
    assert [line.split()[2] for line in lines] == ["2", "1", "3", "2"]


def test_data_of_what_is_no_structure(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    Atoms("HHO", np.diag([0, 0.7, 3])).write(tmp_path / "water.xyz")
    Atoms("HHH", np.diag([0, 0.7, 3])).write(tmp_path / "odd.xyz")
    (tmp_path / "table.md").write_text("# nothing\n")
    (tmp_path / "folder").mkdir()
    for name in ("one.xyz", "one.traj", "one.vasp"):
        pa3(3.2).write(tmp_path / name)
    (tmp_path / "half.traj").write_bytes((tmp_path / "one.traj").read_bytes()[:100])
    molecule().write(tmp_path / "open.xyz")
    wrong = rectangle()
    wrong.arrays["partner"][:] = 2
    wrong.write(tmp_path / "wrong.extxyz")
    for name, sentence in {
        "notes.txt": "notes.txt has no format that ASE reads",
        "water.xyz": "Atom 2 is O: the potential knows hydrogen only",
        "odd.xyz": "3 atoms cannot all be in molecules",
        "none.xyz": "No such file",
        "table.md": "Error: table.md holds no structure that can be read.",
        "folder": "There is no trajectory folder/trajectory.traj.",
        "half.traj": "half.traj cannot be read as a structure: ",
        "one.xyz --index 5": "Error: one.xyz holds no frame 5 that can be read.",
        "one.traj --index 5": "Error: one.traj holds no frame 5 that can be read.",
        "one.vasp --index -3": "Error: one.vasp holds no frame -3 that can be read.",
        "one.xyz -o no/where": "Error: no/where: No such file or directory",
        "one.xyz -o folder": "Error: folder: Is a directory",
        "open.xyz --repeat 1 1 2": "Cell vector 3 of 3 is missing: nothing repeats along it.",
        "wrong.extxyz": "bonds must name each atom once",
    }.items():
        done = hmlp("export", "data", *name.split(), cwd=tmp_path)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
        assert not done.stderr.strip().endswith(":")
        assert len(done.stderr.strip().splitlines()) == 1
    done = hmlp("export", "lammps", MODEL, "-o", "no/where", cwd=tmp_path)
    assert done.stderr == "Error: no/where: No such file or directory\n"


def rectangle():
    """Two molecules whose atoms are nearer to each other's than to their partners."""
    atoms = Atoms("H4", [[0.3, 1, 1], [3.4, 1, 1], [0.3, 1.7, 1], [3.4, 1.7, 1]])
    atoms.set_cell([4.0, 4.0, 4.0])
    atoms.pbc = True
    atoms.set_array("partner", np.array([1, 0, 3, 2]))
    return atoms


def bonds_of(path):
    """Pairs of atoms, from 0, and bond lengths by the file's own positions."""
    text = path.read_text()
    atoms = text.split("Atoms # bond\n\n")[1].split("\n\n")[0].splitlines()
    positions = np.array([line.split()[3:6] for line in atoms], dtype=float)
    rows = text.split("Bonds\n\n")[1].splitlines()
    pairs = np.array([line.split()[2:] for line in rows], dtype=int) - 1
    return pairs.tolist(), np.linalg.norm(np.subtract(*positions[pairs.T]), axis=1)


def test_data_with_the_bonds_that_are_stated(tmp_path):
    """By the column "partner", across the cell's faces, of a supercell as well."""
    atoms = rectangle()
    write_data(atoms, tmp_path / "a.data")
    assert bonds_of(tmp_path / "a.data")[0] == [[0, 1], [2, 3]]
    write_data(atoms, tmp_path / "a.data", bonds=[[0, 2], [1, 3]])
    assert bonds_of(tmp_path / "a.data")[0] == [[0, 2], [1, 3]]
    atoms.write(tmp_path / "r.extxyz")
    done = hmlp("export", "data", "r.extxyz", "--repeat", 2, 1, 3, cwd=tmp_path)
    assert done.stderr == ""
    pairs, lengths = bonds_of(tmp_path / "r.data")
    assert pairs == [[k, k + 1] for k in range(0, 24, 2)]
    np.testing.assert_allclose(lengths, 0.9, atol=1e-7)


def test_data_of_a_frame_of_a_run(tmp_path):
    """The header of its trajectory says which atoms are bonded; the folder stands for it."""
    atoms = rectangle()
    del atoms.arrays["partner"]
    with Trajectory(tmp_path / "trajectory.traj", "w") as frames:
        described = {"type": "molecular-dynamics", "molecules": [[0, 1], [2, 3]]}
        frames.set_description(described)
        for _ in range(2):
            frames.write(atoms)
    for name in ("trajectory.traj", "."):
        for options in ((), ("--index", 0, "--repeat", 1, 2, 1)):
            done = hmlp("export", "data", name, "-o", "a.data", *options, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            pairs, lengths = bonds_of(tmp_path / "a.data")
            assert pairs == [[k, k + 1] for k in range(0, len(pairs) * 2, 2)]
            assert len(pairs) == (4 if options else 2)
            np.testing.assert_allclose(lengths, 0.9, atol=1e-7)


def test_data_of_a_supercell_has_no_velocities(tmp_path):
    """They would be the same in every copy."""
    warm(size=(1, 1, 1)).write(tmp_path / "warm.traj")
    done = hmlp("export", "data", "warm.traj", cwd=tmp_path)
    assert done.stderr == "" and "Velocities" in (tmp_path / "warm.data").read_text()
    done = hmlp("export", "data", "warm.traj", "--repeat", 2, 2, 1, cwd=tmp_path)
    assert done.stderr == "Velocities were left out: those of all copies would be the same.\n"
    assert done.returncode == 0 and "Velocities" not in (tmp_path / "warm.data").read_text()


# ---------------------------------------------------------------- building


def test_without_a_compiler_lammps_still_starts(tmp_path):
    env = {"CXX": "no-such-compiler", "HMLP_PLUGIN_CACHE": str(tmp_path / "cache")}
    done = lammps(tmp_path, "units metal\n", env=env)
    warning = "WARNING: LAMMPS does without pair style hmlp: there is no C++ compiler"
    assert done.stderr.count(warning) == 1
    done = hmlp("lammps", cwd=tmp_path, env=env)
    assert done.returncode == 2 and "no C++ compiler" in done.stderr


def test_failed_compilation_leaves_a_log(tmp_path, monkeypatch):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho it broke >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("HMLP_PLUGIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PluginError, match=r"could not compile it; what it said is in .*build\.log"):
        plugin.build()
    assert "it broke" in next((tmp_path / "cache").glob("*/build.log")).read_text()


def test_two_processes_build_once(tmp_path):
    """As ranks of a parallel run do, when the plugin is not there yet."""
    counter = tmp_path / "count"
    compiler = tmp_path / "c++"
    compiler.write_text(
        f'#!/bin/sh\necho x >> {counter}\nsleep 0.3\nwhile [ "$1" != -o ]; do shift; done\n'
        'echo > "$2"\n'
    )
    compiler.chmod(0o755)
    env = {**os.environ, "CXX": str(compiler), "HMLP_PLUGIN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ase_hmlp.cli", "lammps"]
    started = {"env": env, "cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **started) for _ in "ab"]
    folders = {process.communicate()[0] for process in both}
    assert len(folders) == 1 and os.path.isfile(os.path.join(folders.pop().strip(), plugin.PLUGIN))
    assert counter.read_text() == "x\n"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
def test_cmake_builds_the_same_source(tmp_path, model):
    """The documented lines, with the installed headers in the place of a source tree."""
    version = next(x for x in plugin._definitions() if "VERSION" in x).split('"')[1]
    configure = [
        "cmake",
        *("-S", str(plugin.SOURCES), "-B", str(tmp_path / "build")),
        *("-D", f"LAMMPS_SOURCE_DIR={plugin._lammps() / 'include' / 'lammps'}"),
        *("-D", f"LAMMPS_VERSION={version}"),
        *("-D", f"MPI_CXX_COMPILER={lammps_runs.BIN / 'mpicxx'}"),
    ]
    for command in (configure, ["cmake", "--build", str(tmp_path / "build")]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    env = {"CXX": "no-such-compiler", "HMLP_PLUGIN_CACHE": str(tmp_path / "cache")}
    env["LAMMPS_PLUGIN_PATH"] = str(tmp_path / "build")
    lammps(tmp_path, start(tmp_path, pa3(), model) + "run 0\n", env=env)
