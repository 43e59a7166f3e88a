#!/usr/bin/env python3
"""Label with Quantum ESPRESSO what `hmlp compare` holds a model against.

Derived quantities, not frames to fit: nothing in the output is ever trained on. Groups
(``info["group"]``):

``molecule``
    the isolated molecule around its bond length;
``dimer``
    pairs of molecules at the bond length of the isolated one, arranged as H, X, T and L
    (``info["axes"]``), centres 1.4 to 6 Å apart (``info["separation"]``);
``relaxed``
    crystals (``info["phase"]``) relaxed at ``info["pressure_GPa"]``, cell and positions, in their
    space group. P2₁/c-8 at eight pressures, 1.7 to 4 Å³/atom; the others at 60, 100 and 150 GPa;
``phonon``
    P2₁/c-8 relaxed at 100 GPa, with one atom displaced;
``convergence``
    some of the above under settings one step better (``info["check"]``), to see what they are
    converged to.

Crystals are relaxed on one k-mesh per phase, the same at all pressures, and labelled on a denser
one. Stress at this cutoff lacks about 1 GPa (Pulay), which moves the relaxed volume a little and
the enthalpy ``E + P V``, of ``E`` at constant cutoff and ``P`` the target, in second order only.
Relaxations start from the published structures, by way of the model's own relaxation and its
second derivatives, which spare nine DFT steps in ten.

Every calculation is kept in ``<work>/<settings>.extxyz`` as it finishes. Run the script again
after a kill, with the same model, and it runs through what is kept and goes on from there.

Example
-------
::

    nice -n 19 python generate_fidelity.py --work fidelity-work --output h2-pbe-fidelity.extxyz.xz
"""

import argparse
import io
import itertools
import lzma
import signal
from pathlib import Path

import ase.io
import numpy as np
import spglib
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io.espresso import kspacing_to_grid

from ase_hmlp import HMLP
from ase_hmlp.errors import LabellingError, NotConvergedError
from ase_hmlp.molecules import find_molecules, partners
from ase_hmlp.simulate.build import phase as load_phase
from ase_hmlp.simulate.relax import curvature_of, relax
from ase_hmlp.training.fidelity.crystals import displaced_cells, in_space_group
from ase_hmlp.training.fidelity.reference import ARRANGEMENTS, CRYSTAL, PHASES, PRESSURES
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label import RunSection, label_frames, structure_digest
from ase_hmlp.training.label_calculators import EspressoSection

BOND = 0.7508  # of the isolated molecule, Å
BONDS = np.linspace(0.69, 0.81, 9)
MOLECULE_BOX = 10.0  # Å

NEAR, FAR = (1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6), (2.8, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0, 6.0)
# X and T closer together where their curves cross.
SEPARATIONS = {
    name: sorted((*NEAR, *FAR, *((1.9, 2.1, 2.3, 2.5, 2.7) if name in "XT" else ())))
    for name in ARRANGEMENTS
}
# Images of quadrupoles 7 Å away are worth 0.05 meV.
DIMER_BOX = (8.0, 8.0, 13.0)
LARGE_BOX = (11.0, 11.0, 16.0)
CHECKED_SEPARATIONS = (2.0, 2.2, 2.4)

# Every phase is relaxed here first; phonons and checks belong to it.
REFERENCE = 100.0  # GPa
EQUATION_OF_STATE = (25.0, 35.0, 45.0, 60.0, 80.0, 100.0, 150.0, 215.0)
# k-spacing of relaxations, of labels and of their check, 1/Å without 2 pi.
RELAXATION, LABELS, DENSE = 0.08, 0.06, 0.045
HIGH_CUTOFF = {"ecutwfc": 80, "ecutrho": 350}
TIGHT = {"conv_thr": 1e-11}  # for the small forces of displaced atoms

FMAX, STRESS = 0.005, 0.2  # eV/Å, GPa
STEPS = 60
# Where only P(V) is wanted the cell need not be the best of its volume.
LOOSE = 1.0  # GPa


class Laboratory:
    """Quantum ESPRESSO that computes nothing twice.

    Parameters
    ----------
    work : pathlib.Path
        Folder of what is kept.
    command, pseudo_dir : str
    """

    def __init__(self, work, command, pseudo_dir):
        self.work = work
        self.settings = {"command": command, "pseudo_dir": pseudo_dir}
        self.kept = {}

    def label(self, atoms, kpts=None, **input_data):
        """Label one structure.

        Parameters
        ----------
        atoms : ase.Atoms
        kpts : three int, optional
            The recipe's, that is the Gamma point for what is isolated, if not given.
        **input_data
            pw.x variables in place of the recipe's.

        Returns
        -------
        ase.Atoms
            As read from the file, so that a run that is resumed sees the same digits.
        """
        section = EspressoSection(kpts=kpts, input_data=input_data, **self.settings)
        labeller = section.labeller()
        path = self.work / f"{labeller.settings}.extxyz"
        digest = structure_digest(atoms)
        if digest not in self._read(path):
            bare = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            one = RunSection(workers=1)
            result = label_frames([bare], path, labeller, one, retry_failed=True)
            if result.failed:
                raise LabellingError(f"A calculation failed, see {result.failures}.")
            del self.kept[path]
        return self._read(path)[digest]

    def _read(self, path):
        if path not in self.kept:
            frames = ase.io.read(path, ":", format="extxyz") if path.exists() else []
            self.kept[path] = {atoms.info["label_id"]: atoms for atoms in frames}
        return self.kept[path]


class Kept(Calculator):
    """ASE calculator around `Laboratory.label`."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, laboratory, kpts):
        super().__init__()
        self.laboratory, self.kpts = laboratory, kpts

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill the results."""
        super().calculate(atoms, properties, system_changes)
        labelled = self.laboratory.label(self.atoms, self.kpts)
        self.results = dict(labelled.calc.results)


def molecule(bond):
    """Build an isolated molecule along z, in a box that is the same for all bond lengths (Å)."""
    half = np.array([0.0, 0.0, bond / 2])
    centre = np.full(3, MOLECULE_BOX / 2)
    return Atoms("H2", [centre - half, centre + half], cell=3 * [MOLECULE_BOX], pbc=True)


def dimer(arrangement, separation, box=DIMER_BOX):
    """Build two molecules with their centres `separation` (Å) apart along z."""
    centre = np.array(box) / 2
    positions = []
    for axis, side in zip(ARRANGEMENTS[arrangement], (-0.5, 0.5), strict=True):
        half = BOND / 2 * np.eye(3)["xyz".index(axis)]
        middle = centre + np.array([0.0, 0.0, side * separation])
        positions += [middle - half, middle + half]
    return Atoms("H4", positions, cell=box, pbc=True)


def published(name):
    """Look up a phase, its symmetry made exact, in the axes in which pw.x looks for symmetry."""
    atoms = load_phase(name)
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    cell, positions, numbers = spglib.standardize_cell(cell, symprec=1e-2)
    if len(numbers) != len(atoms):
        raise ValueError(f"the published cell of {name} is not the conventional one")
    return in_space_group(Atoms(numbers, cell=cell, scaled_positions=positions, pbc=True))


def meshes(name):
    """Meshes of a phase for relaxation, labels and check, from its published cell."""
    atoms = published(name)
    return [tuple(kspacing_to_grid(atoms, spacing)) for spacing in (RELAXATION, LABELS, DENSE)]


def shifted(atoms, start, end):
    """Change `atoms` as `end` differs from `start`: cell, and positions relative to it."""
    moved = atoms.copy()
    moved.set_constraint()
    cell = atoms.cell.array + end.cell.array - start.cell.array
    scaled = atoms.get_scaled_positions(wrap=False)
    scaled += end.get_scaled_positions(wrap=False) - start.get_scaled_positions(wrap=False)
    moved.set_cell(cell)
    moved.set_scaled_positions(scaled)
    return in_space_group(moved)


def relaxed_by_dft(laboratory, name, pressures, model, report):
    """Relax a phase: at `REFERENCE` first, then from there, as the model's own relaxation moves.

    Parameters
    ----------
    laboratory : Laboratory
    name : str
    pressures : iterable of float, GPa
    model : ase calculator
    report : callable, given a line

    Returns
    -------
    dict of ase.Atoms, by pressure
        Without those that did not relax within `STEPS`.
    """

    def by_model(atoms, pressure):
        atoms = atoms.copy()
        atoms.calc = model
        guess = curvature_of(atoms, pressure)
        return relax(atoms, pressure, 1e-3, 0.02, curvature=guess).atoms

    models = {REFERENCE: by_model(published(name), REFERENCE)}
    for side in (1, -1):  # outwards, each from the one before
        before = REFERENCE
        for pressure in sorted(pressures, key=lambda p: side * p):
            if side * pressure > side * REFERENCE:
                models[pressure] = by_model(models[before], pressure)
                before = pressure
    result = {}
    for pressure in sorted(pressures, key=lambda p: abs(p - REFERENCE)):
        if pressure == REFERENCE:
            start = in_space_group(models[REFERENCE])
        else:
            nearest = min(result, key=lambda p: abs(p - pressure))
            start = shifted(result[nearest], models[nearest], models[pressure])
        start.calc = model
        guess = curvature_of(start, pressure)
        start.calc = Kept(laboratory, meshes(name)[0])

        def progress(step, fmax, stress_error, pressure=pressure):
            report(f"{name} {pressure:g} GPa step {step}: {fmax:.4f} eV/Å, {stress_error:.2f} GPa")

        stress = STRESS if pressure in PRESSURES else LOOSE
        try:
            result[pressure] = relax(start, pressure, FMAX, stress, STEPS, progress, guess).atoms
        except NotConvergedError as error:
            # A phase that is unstable there wanders off; the others do not wait for it.
            if pressure == REFERENCE:
                raise
            report(f"{name} {pressure:g} GPa is left out: {error}")
    return result


class Recorder:
    """Labels structures and says in their ``info`` what they are.

    Parameters
    ----------
    laboratory : Laboratory
    report : callable, given a line
    """

    def __init__(self, laboratory, report):
        self.laboratory, self.report = laboratory, report

    def frame(self, source, group, atoms, kpts=None, input_data=None, **info):
        """Label one structure.

        Parameters
        ----------
        source, group : str
        atoms : ase.Atoms
        kpts, input_data
            As `Laboratory.label` takes them.
        **info
            What else to say.

        Returns
        -------
        ase.Atoms
            With a calculator that holds the labels, and the array ``partner``.
        """
        labelled = self.laboratory.label(atoms, kpts, **(input_data or {}))
        wanted = ("label", "cpu_seconds", "pulay")
        kept = {key: labelled.info[key] for key in wanted if key in labelled.info}
        frame = labelled.copy()
        frame.calc = labelled.calc
        frame.info = {"group": group, "source": f"fidelity/{source}", **info, **kept}
        if group in ("relaxed", "phonon") or "phase" in info:
            pairs = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
        else:  # as they were built: contacts may be shorter than bonds
            pairs = np.arange(len(atoms)).reshape(-1, 2)
        frame.set_array("partner", partners(pairs))
        self.report(f"{source}: {kept['cpu_seconds']:.1f} s")
        return frame


def molecule_frames(recorder):
    """Label the molecule at several bond lengths."""
    for k, bond in enumerate(BONDS):
        yield recorder.frame(f"molecule/{k}", "molecule", molecule(bond), bond=bond)


def dimer_frames(recorder):
    """Label pairs of molecules."""
    for name, separations in SEPARATIONS.items():
        for r in separations:
            what = {"axes": ARRANGEMENTS[name], "separation": r}
            yield recorder.frame(f"dimer/{name}/{r:g}", "dimer", dimer(name, r), **what)


def crystal_frames(recorder, name, relaxed):
    """Label a phase, relaxed, on the mesh of the labels."""
    for pressure, atoms in sorted(relaxed.items()):
        what = {"phase": name, "pressure_GPa": pressure, "kpts": meshes(name)[1]}
        yield recorder.frame(f"relaxed/{name}/{pressure:g}", "relaxed", atoms, **what)


def phonon_frames(recorder, relaxed):
    """Label a crystal with one atom displaced."""
    for k, atoms in enumerate(displaced_cells(relaxed)):
        settings = {"kpts": meshes(CRYSTAL)[1], "input_data": TIGHT}
        what = {"phase": CRYSTAL, "pressure_GPa": REFERENCE, **settings}
        yield recorder.frame(f"phonon/{k}", "phonon", atoms, **what)


def dimer_checks(recorder):
    """Label pairs near the crossing in a larger box, and at a higher cutoff."""
    for r, name in itertools.product(CHECKED_SEPARATIONS, "XT"):
        for check, box, settings in (
            ("large box", LARGE_BOX, {}),
            ("80 Ry", DIMER_BOX, HIGH_CUTOFF),
        ):
            what = {"check": check, "axes": ARRANGEMENTS[name], "separation": r}
            source, atoms = f"dimer/{name}/{r:g}/{check}", dimer(name, r, box)
            yield recorder.frame(source, "convergence", atoms, input_data=settings, **what)


def crystal_checks(recorder, relaxed):
    """Label the phases on other meshes, and at a higher cutoff."""
    for name in PHASES:
        coarse, _, dense = meshes(name)
        for check, kpts, settings in (
            ("relaxation mesh", coarse, {}),
            ("relaxation mesh, 80 Ry", coarse, HIGH_CUTOFF),
            ("dense mesh", dense, {}),
        ):
            what = {"check": check, "phase": name, "pressure_GPa": REFERENCE}
            settings = {"kpts": kpts, "input_data": settings}
            source, atoms = f"relaxed/{name}/{REFERENCE:g}/{check}", relaxed[name][REFERENCE]
            yield recorder.frame(source, "convergence", atoms, **settings, **what)


def phonon_checks(recorder, relaxed):
    """Label the displaced atoms on a denser mesh, and at a higher cutoff."""
    _, usual, dense = meshes(CRYSTAL)
    for check, kpts, settings in (
        ("phonons, dense mesh", dense, TIGHT),
        ("phonons, 80 Ry", usual, TIGHT | HIGH_CUTOFF),
    ):
        for k, atoms in enumerate(displaced_cells(relaxed)):
            what = {"check": check, "phase": CRYSTAL, "pressure_GPa": REFERENCE}
            source, how = f"phonon/{k}/{check}", {"kpts": kpts, "input_data": settings}
            yield recorder.frame(source, "convergence", atoms, **how, **what)


def build(laboratory, model, report, checks=True):
    """Compute everything.

    Parameters
    ----------
    laboratory : Laboratory
    model : ase calculator
        Where relaxations start from.
    report : callable, given a line
    checks : bool
        Whether to look what the settings are converged to.

    Yields
    ------
    ase.Atoms
        Labelled, with ``info`` that says what it is.
    """
    recorder = Recorder(laboratory, report)
    yield from molecule_frames(recorder)
    yield from dimer_frames(recorder)
    relaxed = {}
    # First the one that most hangs on.
    for name in sorted(PHASES, key=lambda name: name != CRYSTAL):
        pressures = EQUATION_OF_STATE if name == CRYSTAL else PRESSURES
        relaxed[name] = relaxed_by_dft(laboratory, name, pressures, model, report)
        yield from crystal_frames(recorder, name, relaxed[name])
        if name == CRYSTAL:
            yield from phonon_frames(recorder, relaxed[name][REFERENCE])
    if checks:
        yield from dimer_checks(recorder)
        yield from crystal_checks(recorder, relaxed)
        yield from phonon_checks(recorder, relaxed[CRYSTAL][REFERENCE])


def checked(laboratory, path, report):
    """The frames of a file without checks, and checks of its crystals and of pairs.

    Parameters
    ----------
    laboratory : Laboratory
    path : pathlib.Path
        That `build` gave.
    report : callable, given a line
    """
    kept = [a for a in iterate_structures(path) if a.info["group"] != "convergence"]
    relaxed = {name: {} for name in PHASES}
    for atoms in kept:
        if atoms.info["group"] == "relaxed":
            relaxed[atoms.info["phase"]][float(atoms.info["pressure_GPa"])] = atoms
    recorder = Recorder(laboratory, report)
    yield from kept
    yield from dimer_checks(recorder)
    yield from crystal_checks(recorder, relaxed)
    yield from phonon_checks(recorder, relaxed[CRYSTAL][REFERENCE])


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("h2-pbe-fidelity.extxyz.xz"))
    parser.add_argument("--work", type=Path, default=Path("fidelity-work"))
    parser.add_argument("--model", default="h2-pbe", help="where relaxations start from")
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pseudo-dir", default="/usr/share/espresso/pseudo")
    parser.add_argument("--no-checks", action="store_true", help="without better settings")
    parser.add_argument(
        "--checks-of", type=Path, help="only the checks, of the crystals in this file"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    # As on Ctrl-C, so that the calculation in flight ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    laboratory = Laboratory(arguments.work, arguments.command, arguments.pseudo_dir)
    stream = io.StringIO()

    def report(line):
        print(line, flush=True)

    if arguments.checks_of:
        frames = list(checked(laboratory, arguments.checks_of, report))
    else:
        model = HMLP(arguments.model)
        frames = list(build(laboratory, model, report, not arguments.no_checks))
    ase.io.write(stream, frames, format="extxyz")
    arguments.output.write_bytes(lzma.compress(stream.getvalue().encode(), preset=9))
    print(f"{len(frames)} frames in {arguments.output}")


if __name__ == "__main__":
    main()
