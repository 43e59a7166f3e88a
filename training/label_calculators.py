"""What labels a structure: Quantum ESPRESSO by the project's recipe, or any ASE calculator."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.calculators.espresso import Espresso, EspressoProfile
from ase.io.espresso import kspacing_to_grid
from ase.io.espresso_namelist.keys import pw_keys
from pydantic import Field, PositiveFloat, PositiveInt

from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import ConfigError, DataError, LabelError
from ase_hmlp.model_io import available_models, model_hash
from ase_hmlp.training.frames import file_digest
from ase_hmlp.training.sections import Section

#: The project's recipe: every frame labelled with it shares one energy zero.
RECIPE = {
    "ecutwfc": 46,
    "ecutrho": 202,
    "occupations": "smearing",
    "smearing": "gaussian",
    "degauss": 0.0147,
    "conv_thr": 1e-8,
    "disk_io": "none",
}

PSEUDOPOTENTIAL = "H.pbe-kjpaw.UPF"

#: What the pressure of the recipe lacks, times the volume per atom, eV: the Pulay stress of a basis
#: that changes with the cell, -2/3 dE/d ln(cutoff) per atom. 13.2 to 14.8 meV from 1.75 to 6
#: Å³/atom, see training/data/measure_pulay.py: half a GPa to more than one.
PULAY = 0.0137

#: What the labels themselves hang on: not the user's to change.
_FIXED = {"calculation": "scf", "tprnfor": True, "tstress": True, "outdir": "."}
_RESERVED = {*_FIXED, "pseudo_dir", "prefix", "ibrav", "nat", "ntyp"}

#: What a label says of the k-points if it is the mean over both meshes.
BOTH_MESHES = " and shifted, mean"

#: How a program ends that Ctrl-C ended: by signal, or saying so as shells and mpirun do.
_INTERRUPTED = (-2, 130)


#: Keys of ``Labels.info``. What one calculation says by them is not true of the next.
ABOUT_LABELS = ("cpu_seconds", "pulay", "mesh_error")


@dataclass(frozen=True)
class Labels:
    """What a calculation returns for n atoms.

    Attributes
    ----------
    energy : float, eV
        What the forces are derivatives of: with smearing the free energy.
    forces : (n, 3) eV/Å
    stress : (6,) eV/Å³, ASE's sign and Voigt order, or None
    label : str
        Code, version and settings, as a person reads them.
    info : dict
        What else is worth keeping with the frame, by `ABOUT_LABELS`.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    label: str
    info: dict[str, Any]


@dataclass(frozen=True)
class Labeller:
    """A calculator ready to run, here or on another machine.

    Attributes
    ----------
    settings : str
        Digest of all that the labels depend on: frames under different settings do not mix.
    compute : callable
        From a structure and an empty folder to `Labels`; raises what went wrong.
    """

    settings: str
    compute: Callable[[Atoms, Path], Labels]


class EspressoSection(Section):
    """Quantum ESPRESSO, by default with the recipe that labelled the project's own data.

    Attributes
    ----------
    command : how to start one pw.x
    pseudo_dir : folder of the pseudopotential, relative to the configuration
    pseudopotential : file of hydrogen
    kspacing : largest distance between k-points, 1/Å, without 2 pi
    small_kspacing : the same for cells of up to `small_cell` atoms
    shifted_from : cells of at least this many atoms have the mesh shifted by half a division, which
        converges faster where there are few divisions; 0 for never
    both_meshes : label smaller cells with the mean of the mesh and the shifted one. The leading
        errors of the two are opposite: twice the time, a tenth of the error in energy and a
        quarter of that in forces (see training/data/measure_meshes.py). ``info["mesh_error"]`` is
        half their difference in energy, eV/atom
    vacuum : directions in which the cell holds an empty slab at least this wide (Å) need no
        k-points; a cell with three such directions gets the Gamma point alone, any other never
    kpts : one mesh for every frame in place of the three above, so that the energy of a cell that
        changes its shape has no jumps
    threads : OMP_NUM_THREADS of each pw.x; two serial jobs beat one on two threads
    pulay : eV/atom; written to ``info["pulay"]``, by which `read_frames` corrects the stress: what
        the pressure lacks at this cutoff times the volume per atom. The recipe's own if not given,
        with other cutoffs or another pseudopotential 0
    input_data : pw.x variables to add to or put in place of the recipe's, without namelists
    """

    kind: Literal["espresso"] = "espresso"
    command: str = Field("pw.x", min_length=1)
    pseudo_dir: str = "/usr/share/espresso/pseudo"
    pseudopotential: str = PSEUDOPOTENTIAL
    kspacing: PositiveFloat = 0.08
    small_kspacing: PositiveFloat = 0.05
    small_cell: int = Field(8, ge=0)
    shifted_from: int = Field(0, ge=0)
    both_meshes: bool = False
    vacuum: PositiveFloat = 5.0
    kpts: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    threads: PositiveInt = 1
    pulay: float | None = None
    input_data: dict[str, bool | int | float | str] = Field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """Variables of pw.x that are not fixed: the recipe's, or those in their place."""
        return RECIPE | {k.lower(): v for k, v in self.input_data.items()}

    def lacking(self) -> float:
        """What the pressure lacks times the volume per atom, eV."""
        if self.pulay is not None:
            return self.pulay
        return self._usual_pulay() if self.pseudopotential == PSEUDOPOTENTIAL else 0.0

    def _usual_pulay(self) -> float:
        """What `lacking` is by the cutoffs alone."""
        variables = self.variables()
        own = all(variables[name] == RECIPE[name] for name in ("ecutwfc", "ecutrho"))
        return PULAY if own else 0.0

    def labeller(self, base: Path = Path()) -> Labeller:
        """Check what the calculation needs.

        Raises
        ------
        ConfigError
            If pw.x or the pseudopotential is not there, or a pw.x variable does not exist or is
            not the user's to set.
        """
        known = {name.split("(")[0].lower() for names in pw_keys.values() for name in names}
        for name in self.input_data:
            if name.split("(")[0].lower() not in known:
                raise ConfigError(f"calculator.input_data: pw.x has no variable {name!r}.")
            if name.lower() in _RESERVED:
                raise ConfigError(f"calculator.input_data: {name!r} is set by hmlp label itself.")
        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise ConfigError(
                f"calculator.command: there is no program {program!r}; Debian and Ubuntu have it "
                "in the packages quantum-espresso and quantum-espresso-data."
            )
        # Resolved: pw.x runs in a scratch folder, where a relative path means another place.
        folder = (base / self.pseudo_dir).resolve()
        try:
            content = (folder / self.pseudopotential).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"calculator.pseudopotential: {folder / self.pseudopotential} cannot be read: "
                f"{error.strerror}."
            ) from error
        sha256 = hashlib.sha256(content).hexdigest()
        settings: dict[str, Any] = {
            "code": "Quantum ESPRESSO",
            "sha256": sha256,
            "input_data": self.variables(),
            "kspacing": [self.kspacing, self.small_kspacing, self.small_cell, self.vacuum],
        }
        if self.shifted_from:  # outputs from before there was this choice stay valid
            settings["shifted_from"] = self.shifted_from
        if self.both_meshes:
            settings["both_meshes"] = True
        if self.kpts:
            settings["kspacing"] = list(self.kpts)
        if self.lacking() != self._usual_pulay():
            settings["pulay"] = self.lacking()
        return Labeller(_digest(settings), _Espresso(self, str(folder), sha256))


@dataclass(frozen=True)
class _Run:
    """What one pw.x says; units as in `Labels`."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    release: str
    functional: str
    cpu_seconds: float | None


@dataclass(frozen=True)
class _Espresso:
    section: EspressoSection
    pseudo_dir: str
    sha256: str

    def __call__(self, atoms: Atoms, scratch: Path) -> Labels:
        section = self.section
        if set(atoms.symbols) != {"H"}:
            raise DataError("the pseudopotential is for hydrogen only")
        spacing = section.kspacing if len(atoms) > section.small_cell else section.small_kspacing
        mesh = list(section.kpts) if section.kpts else k_mesh(atoms, spacing, section.vacuum)
        if mesh is None:
            shifts = [False]
        elif 0 < section.shifted_from <= len(atoms):
            shifts = [True]
        else:
            shifts = [False, True] if section.both_meshes else [False]
        runs = [self._run(atoms, scratch, mesh, shifted) for shifted in shifts]
        info: dict[str, Any] = {}
        if seconds := [run.cpu_seconds for run in runs if run.cpu_seconds]:
            info["cpu_seconds"] = round(sum(seconds), 2)
        if lacking := section.lacking():
            info["pulay"] = lacking
        if len(runs) == 2:
            info["mesh_error"] = mesh_error(runs[0].energy, runs[1].energy, len(atoms))
        return Labels(
            float(np.mean([run.energy for run in runs])),
            np.mean([run.forces for run in runs], axis=0),
            np.mean([run.stress for run in runs], axis=0),
            self._describe(runs[0], mesh, shifts),
            info,
        )

    def _run(self, atoms: Atoms, scratch: Path, mesh: list[int] | None, shifted: bool) -> _Run:
        """One pw.x."""
        section = self.section
        # By env: workers may be threads, and the process's own environment is not ours to change.
        # Open MPI refuses root, as in a container, unless told twice.
        command = (
            f"env OMP_NUM_THREADS={section.threads} OMPI_ALLOW_RUN_AS_ROOT=1 "
            f"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 {section.command}"
        )
        calculator = Espresso(
            profile=EspressoProfile(command=command, pseudo_dir=self.pseudo_dir),
            directory=scratch,
            pseudopotentials={"H": section.pseudopotential},
            input_data=section.variables() | _FIXED,
            kpts=mesh,
            # No shift where there is one division: that is across vacuum.
            koffset=[int(shifted and k > 1) for k in mesh or (1, 1, 1)],
        )
        written = scratch / "espresso.pwo"
        written.unlink(missing_ok=True)
        try:
            calculator.calculate(atoms, ["energy", "forces", "stress"], all_changes)
        except Exception as error:
            _raise_if_interrupted(error)
            output = written.read_text(errors="replace") if written.exists() else ""
            raise LabelError(_espresso_failure(output, error)) from error
        output = written.read_text(errors="replace")
        if not _converged(output):
            raise LabelError(_espresso_failure(output, None))
        results = calculator.results
        for name in ("energy", "forces", "stress"):
            if results.get(name) is None:
                raise LabelError(f"pw.x printed no {name}")
        return _Run(
            float(results["energy"]),
            results["forces"],
            results["stress"],
            _first(r"Program PWSCF v\.(\S+)", output, "of unknown version"),
            _first(r"Exchange-correlation\s*=\s*(.*?)\s*\n", output, "unknown functional"),
            _cpu_seconds(output),
        )

    def _describe(self, run: _Run, mesh: list[int] | None, shifts: list[bool]) -> str:
        functional = " ".join(run.functional.split())
        functional = {"SLA PW PBX PBC": "PBE"}.get(functional, functional)
        v = self.section.variables()
        parts = [f"Quantum ESPRESSO {run.release}", functional]
        parts += [f"{name} {v.pop(name)} Ry" for name in ("ecutwfc", "ecutrho")]
        if v.pop("occupations") == "smearing":
            parts.append(f"{v.pop('smearing')} smearing {v.pop('degauss')} Ry")
        parts.append(f"conv_thr {v.pop('conv_thr'):.0e}")
        points = "gamma" if mesh is None else "x".join(map(str, mesh))
        how = BOTH_MESHES if len(shifts) == 2 else " shifted" if shifts[0] else ""
        parts.append(f"k-points {points}{how}")
        parts += [f"{k} {v[k]}" for k in v if v[k] != RECIPE.get(k)]
        parts.append(f"{self.section.pseudopotential} sha256:{self.sha256[:16]}")
        return "; ".join(parts)


#: Keyword arguments by which calculators are told where to write: what is there is no input.
_WRITTEN = {"label", "log", "logfile", "out", "outfile", "output", "prefix", "trajectory", "txt"}


class ASESection(Section):
    """Any ASE calculator: CASTEP, VASP, CP2K, GPAW, or whatever can be imported.

    Labels are the free energy where the calculator has it: with smearing, forces and stress are
    its derivatives, and not those of ASE's ``energy``, which VASP and CASTEP extrapolate to no
    smearing. Files that arguments name, relative to the configuration or else to the working
    directory, count by their content, but for those that calculators write to (``txt``, ``log`` and
    the like).

    Attributes
    ----------
    module, class : where it is; a function that returns a calculator will do
    arguments : its keyword arguments
    directory_argument : the keyword that takes the folder to run in; without it, the calculator's
        attribute ``directory`` is set, where it has one
    hash_files : files the labels hang on beside those that arguments name, such as POTCAR or a
        pseudopotential, relative to the configuration: every label has their hashes
    """

    kind: Literal["ase"]
    module: str
    name: str = Field(alias="class")
    arguments: dict[str, Any] = Field(default_factory=dict)
    directory_argument: str = ""
    hash_files: list[str] = Field(default_factory=list)

    def labeller(self, base: Path = Path()) -> Labeller:
        """Check that the calculator can be imported and takes these keywords.

        Raises
        ------
        ConfigError
            If not, or if a file of `hash_files` cannot be read.
        """
        try:
            factory = getattr(import_module(self.module), self.name)
        except Exception as error:  # modules raise whatever they meet
            raise ConfigError(
                f"calculator: {self.name} cannot be imported from {self.module}: {error}."
            ) from error
        try:
            inspect.signature(factory).bind(**_in_folder(self, self.arguments, Path()))
        except TypeError as error:
            raise ConfigError(f"calculator.arguments: {self.name}: {error}.") from error
        except ValueError:  # no signature to look at: the first calculation will tell
            pass
        arguments, hashes = self._found(factory, base)
        settings: list[Any] = [self.module, self.name, self.arguments]
        if hashes:  # outputs of calculators without files stay valid
            settings.append(hashes)
        if "free_energy" in getattr(factory, "implemented_properties", ()):
            # Not to be mixed with what was labelled with the extrapolated energy.
            settings.append("free energy")
        return Labeller(_digest(settings), _AnyCalculator(self, arguments, hashes))

    def _found(self, factory, base: Path) -> tuple[dict[str, Any], dict[str, str]]:
        """Arguments with the files they name where they are, and what labels hang on.

        Returns
        -------
        arguments : dict
        hashes : dict of str
            SHA-256 of files by what the configuration calls them.
        """
        files: dict[str, str] = {}
        arguments = _resolved(self.arguments, base, files)
        hashes = {name: file_digest(path) for name, path in files.items()}
        if inspect.isclass(factory) and issubclass(factory, HMLP):
            model = inspect.signature(factory).parameters.get("model")
            if model is not None:
                name = self.arguments.get("model", model.default)
                if name in available_models():  # files, too, and never others of the same name
                    arguments = arguments | {"model": name}
                hashes[str(name)] = model_hash(arguments.get("model", name))
        for name in self.hash_files:
            try:
                hashes[name] = file_digest(base / name)
            except OSError as error:
                raise ConfigError(
                    f"calculator.hash_files: {base / name} cannot be read: {error.strerror}."
                ) from error
        return arguments, hashes


def _resolved(value: Any, base: Path, files: dict[str, str]) -> Any:
    """Arguments with paths that hold in every folder, lists and tables among them.

    Parameters
    ----------
    value : of an argument, or all of them
    base : Path
        Where files are looked for first; then in the working directory.
    files : dict of str
        Gets the paths of those that are there, by what they are called.
    """
    if isinstance(value, Mapping):
        return {k: v if k in _WRITTEN else _resolved(v, base, files) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(v, base, files) for v in value]
    if not isinstance(value, str):
        return value
    beside = os.path.join(base, value)
    if os.path.isfile(beside):
        # A mere name may mean something else, too: it stays where it means this file.
        same = os.path.isfile(value) and os.path.samefile(value, beside)
        files[value] = beside
        return value if same else os.path.abspath(beside)
    if os.path.isfile(value):
        files[value] = value
    return value


def _in_folder(section: ASESection, arguments: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Arguments with the folder to run in, where there is one for it."""
    folder = {section.directory_argument: str(scratch)} if section.directory_argument else {}
    return arguments | folder


@dataclass(frozen=True)
class _AnyCalculator:
    section: ASESection
    arguments: dict[str, Any]
    hashes: dict[str, str]

    def __call__(self, atoms: Atoms, scratch: Path) -> Labels:
        section = self.section
        factory = getattr(import_module(section.module), section.name)
        calculator = factory(**_in_folder(section, self.arguments, scratch))
        if not section.directory_argument and hasattr(calculator, "directory"):
            calculator.directory = type(calculator.directory or "")(scratch)
        atoms = atoms.copy()
        atoms.calc = calculator
        try:
            energy = float(atoms.get_potential_energy())
            forces = atoms.get_forces(apply_constraint=False)
            stress = None
            if "stress" in calculator.implemented_properties and atoms.cell.rank == 3:
                stress = atoms.get_stress(apply_constraint=False)
            energy = _free_energy(atoms, energy)
        except Exception as error:
            _raise_if_interrupted(error)
            raise
        # VASP's calculator returns labels of an unconverged run, and says so only here.
        converged = getattr(calculator, "converged", None)
        if callable(converged):
            converged = converged()
        if converged is not None and not converged:
            raise LabelError("the calculator reports that it has not converged")
        return Labels(energy, forces, stress, self._describe(calculator), {})

    def _describe(self, calculator) -> str:
        section = self.section
        package = section.module.split(".")[0]
        try:
            release = f" ({package} {version(package)})"
        except PackageNotFoundError:
            release = ""
        parts = [f"{section.module}.{section.name}{release}"]
        program = getattr(calculator, "version", None)
        if isinstance(program, str):
            parts.append(f"version {program}")
        parts += [f"{k} {json.dumps(v, default=str)}" for k, v in section.arguments.items()]
        parts += [f"{name} sha256:{sha256[:16]}" for name, sha256 in self.hashes.items()]
        return "; ".join(parts)


def _free_energy(atoms: Atoms, energy: float) -> float:
    """What the forces of a calculation that was done are derivatives of, eV.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
    energy : float
        What to take where the calculator knows of no other.
    """
    calculator = atoms.calc
    free = getattr(calculator, "results", {}).get("free_energy")
    if free is None and "free_energy" in calculator.implemented_properties:
        try:  # what is there: another calculation would have no more
            free = calculator.get_property("free_energy", atoms, allow_calculation=False)
        except (PropertyNotImplementedError, AttributeError):
            pass
    return energy if free is None else float(free)


def mesh_error(plain: float, shifted: float, n_atoms: int) -> float:
    """Half of what two meshes differ by: about the error of either, eV/atom.

    Parameters
    ----------
    plain, shifted : float
        Energies (eV) on the mesh and on the one shifted by half a division.
    n_atoms : int
    """
    return round(abs(shifted - plain) / 2 / n_atoms, 6)


def k_mesh(atoms: Atoms, spacing: float, vacuum: float) -> list[int] | None:
    """Monkhorst-Pack divisions, unshifted.

    Parameters
    ----------
    atoms : ase.Atoms
    spacing : float
        Largest distance between k-points, 1/Å, without 2 pi.
    vacuum : float
        Width (Å) of an empty slab that isolates a cell from its images.

    Returns
    -------
    list of three int, or None
        None for the Gamma point alone: where all three directions are isolated, and only there.
        A bulk cell so large that one division would do gets two: at Gamma alone 128 atoms have
        forces wrong by 178 meV/Å.

    Raises
    ------
    DataError
        For a cell without volume, or too tight in a direction that is not periodic.
    """
    if atoms.cell.rank < 3 or abs(atoms.cell.volume) < 1e-6:
        raise DataError("plane waves need a cell with three vectors")
    isolated = empty_slabs(atoms) >= vacuum
    for axis, lonely, periodic in zip("abc", isolated, atoms.pbc, strict=True):
        if not periodic and not lonely:
            raise DataError(
                f"not periodic along {axis}, where the cell has less than {vacuum:g} Å of vacuum"
            )
    if isolated.all():
        return None
    mesh = np.where(isolated, 1, kspacing_to_grid(atoms, spacing))
    if mesh.max() == 1:
        mesh[~isolated] = 2
    return mesh.tolist()


def empty_slabs(atoms: Atoms) -> np.ndarray:
    """Width (3,) in Å of the widest slab without atoms, across each lattice direction."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    s = np.sort(np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T % 1.0, axis=0)
    gaps = np.diff(np.vstack([s, s[:1] + 1.0]), axis=0)
    return gaps.max(axis=0) * heights


def _converged(output: str) -> bool:
    """Whether the last estimate of the error is below the threshold.

    The word of pw.x is not enough: with ``scf_must_converge = .false.`` release 6.7 stops after
    the last iteration allowed, says that convergence has been achieved, and ends well.
    """
    threshold = re.search(r"scf convergence threshold\s*=\s*(\S+)", output)
    accuracies = re.findall(r"estimated scf accuracy\s*<\s*(\S+)\s*Ry", output)
    if threshold is None or not accuracies or "convergence has been achieved" not in output:
        return False
    return "convergence NOT achieved" not in output and float(accuracies[-1]) < float(threshold[1])


def _espresso_failure(output: str, error: Exception | None) -> str:
    """Why pw.x gave no labels, in its own words where it has some."""
    iterations = re.findall(r"iteration #\s*(\d+)", output)
    if "convergence NOT achieved" in output or (error is None and iterations):
        return f"self-consistency not reached after {iterations[-1]} iterations"
    block = re.search(r"%{20,}\s*\n(.*?)%{20,}", output, re.S)
    if block:
        return "pw.x: " + " ".join(block[1].split())
    if isinstance(error, CalledProcessError):
        how = f"signal {-error.returncode}" if error.returncode < 0 else str(error.returncode)
        return f"pw.x ended with {how} and without a word"
    if error is not None:
        return f"output of pw.x cannot be read: {type(error).__name__}: {error}"
    return "self-consistency not reached"


def _raise_if_interrupted(error: Exception) -> None:
    """Ctrl-C reaches the program too: that is no failure of the calculation."""
    if isinstance(error, CalledProcessError) and error.returncode in _INTERRUPTED:
        raise KeyboardInterrupt from error


def _cpu_seconds(output: str) -> float | None:
    """CPU time as pw.x prints it (``1m 2.50s``), in seconds."""
    printed = _first(r"PWSCF\s+:\s+(.*?)\s*CPU", output, "")
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    found = re.findall(r"([\d.]+)\s*([dhms])", printed)
    return sum(float(number) * units[unit] for number, unit in found) if found else None


def _first(pattern: str, text: str, otherwise: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else otherwise


def _digest(settings) -> str:
    text = json.dumps(settings, sort_keys=True, default=str)
    # The letter keeps readers of extended XYZ from taking digits for a number.
    return "h" + hashlib.sha256(text.encode()).hexdigest()[:15]
