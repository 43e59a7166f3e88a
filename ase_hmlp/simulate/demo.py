"""`hmlp demo`: relax Phase II of hydrogen under pressure, heat it, look at it.

Everything is written to one folder:

==================  ===============================================================
relaxed.extxyz      the relaxed crystal
trajectory.traj     ASE trajectory of the supercell
log.csv             one row every few steps, columns of `ase_hmlp.simulate.npt.Sample`
summary.json        inputs, model, versions, results, warnings, timings
*.png               pictures, see `ase_hmlp.simulate.figures`
==================  ===============================================================
"""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write

from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import DomainError, DomainWarning, OutputExistsError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import Model, model_hash
from ase_hmlp.simulate import figures
from ase_hmlp.simulate.averages import block_average, drift
from ase_hmlp.simulate.build import phase, supercell
from ase_hmlp.simulate.npt import NPTRun, NPTSettings, Sample, read_log, settled
from ase_hmlp.simulate.relax import Relaxation, relax

FIGURES = ("timeline.png", "molecules.png", "levels.png", "conservation.png", "crystal.png")
FILES = ("relaxed.extxyz", "trajectory.traj", "log.csv", "summary.json", *FIGURES)


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs.

    Attributes
    ----------
    model : str
        Name of a shipped model or path of a model file.
    phase : str
        One of `ase_hmlp.simulate.structures.NAMES`.
    min_atoms : int
        Fewest atoms in the supercell.
    threads : int or None
        Of the calculator.
    npt : NPTSettings
        Pressure, temperature and length.
    """

    model: str = "h2-pbe"
    phase: str = "P21c-8"
    min_atoms: int = 192
    threads: int | None = None
    npt: NPTSettings = field(default_factory=NPTSettings)


@dataclass(frozen=True)
class Result:
    """One line of the table; NaN where there is no such number.

    Attributes
    ----------
    quantity : str
    value, error : float
        In `unit`; the standard error of a mean.
    unit : str
    pbe : float
        The same from PBE itself, static.
    """

    quantity: str
    value: float
    error: float
    unit: str
    pbe: float = float("nan")


@dataclass(frozen=True)
class Demo:
    """What a demo leaves.

    Attributes
    ----------
    folder : Path
    relaxation : Relaxation
    results : list of Result
    summary : dict
        The contents of ``summary.json``; ``summary["status"]`` is "finished" or "interrupted".
    """

    folder: Path
    relaxation: Relaxation
    results: list[Result]
    summary: dict


def prepare_folder(folder: str | Path, overwrite: bool = False) -> Path:
    """Make an empty folder for a run.

    Parameters
    ----------
    folder : path
    overwrite : bool
        Remove the files of an earlier demo, and only those, from a folder that is not empty.

    Raises
    ------
    OutputExistsError
        If the folder is not empty and `overwrite` is not set, or if it is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file, not a folder to write to.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputExistsError(
                f"The folder {folder} is not empty: name another with --output, or replace what "
                "an earlier run left there with --overwrite."
            )
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_demo(
    folder: str | Path,
    settings: DemoSettings | None = None,
    overwrite: bool = False,
    on_relax: Callable[[int, float, float], None] | None = None,
    on_sample: Callable[[Sample], None] | None = None,
) -> Demo:
    """Relax, heat, hold, average, draw.

    Ctrl-C during the dynamics ends the run early; results and pictures are made of what there is.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    settings : DemoSettings, optional
    overwrite : bool
        See `prepare_folder`.
    on_relax : callable, optional
        Called as ``on_relax(step, fmax, stress_error)``, see `ase_hmlp.simulate.relax.relax`.
    on_sample : callable, optional
        Called with every `ase_hmlp.simulate.npt.Sample`.

    Returns
    -------
    Demo

    Raises
    ------
    ase_hmlp.errors.HMLPError
        If the pressure, the folder, the model, the relaxation or a structure will not do.
    """
    settings = settings or DemoSettings()
    npt = settings.npt
    calculator = HMLP(settings.model, threads=settings.threads)
    _check_pressure(calculator.model, npt.pressure)
    folder = prepare_folder(folder, overwrite)
    timings = {}
    status = "failed"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DomainWarning)
        start = time.perf_counter()
        crystal = phase(settings.phase)
        crystal.calc = calculator
        try:
            relaxation = relax(crystal, npt.pressure, progress=on_relax)
        except BaseException:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        timings["relaxation"] = time.perf_counter() - start
        write(folder / "relaxed.extxyz", relaxation.atoms, format="extxyz")

        start = time.perf_counter()
        atoms = supercell(relaxation.atoms, settings.min_atoms)
        atoms.calc = HMLP(calculator.model, threads=settings.threads)
        run = NPTRun(atoms, npt, folder / "trajectory.traj", folder / "log.csv")
        try:
            run.run(on_sample)
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            timings["dynamics"] = time.perf_counter() - start
            steps = run.samples[-1].step if run.samples else 0
            summary = {
                "status": status,
                "inputs": asdict(settings),
                "atoms": len(atoms),
                "steps": steps,
                "model": _model_facts(settings.model, calculator.model),
                "versions": _versions(),
                "threads": calculator.threads,
            }
            _write_json(folder / "summary.json", summary)
    log = read_log(folder / "log.csv")
    results = _relaxed_results(relaxation, crystal, npt.pressure) + _averages(log)
    start = time.perf_counter()
    _draw(folder, log, run, settings)
    timings["pictures"] = time.perf_counter() - start
    others = [w for w in caught if not issubclass(w.category, DomainWarning)]
    for w in others:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    outside = Counter(str(w.message) for w in caught if issubclass(w.category, DomainWarning))
    summary |= {
        "results": [_finite(asdict(r)) for r in results],
        "domain_warnings": list(outside),
        "seconds": {name: round(value, 2) for name, value in timings.items()},
        "us_per_atom_step": round(1e6 * timings["dynamics"] / max(steps, 1) / len(atoms), 2),
    }
    _write_json(folder / "summary.json", summary)
    return Demo(folder, relaxation, results, summary)


def _check_pressure(model: Model, pressure: float) -> None:
    """Refuse what the training data end below; without labelled stresses they have no pressures."""
    highest = model.domain.pressure[1]
    if pressure > highest and model.training.get("pressure") is None:
        raise DomainError(
            f"The training data of model {model.name} end at {highest:.0f} GPa: "
            f"{pressure:g} GPa is beyond them."
        )


def _relaxed_results(relaxation: Relaxation, published: Atoms, pressure: float) -> list[Result]:
    none = float("nan")
    relaxed = relaxation.atoms.cell.cellpar()
    comparable = published.info.get("pressure_GPa") == pressure
    pbe = published.cell.cellpar() if comparable else np.full(6, none)
    names, units = ("a", "b", "c", "α", "β", "γ"), ("Å", "Å", "Å", "°", "°", "°")
    cell = [
        Result(f"relaxed {name}", float(value), none, unit, float(reference))
        for name, value, unit, reference in zip(names, relaxed, units, pbe, strict=True)
    ]
    volume = published.get_volume() / len(published) if comparable else none
    return [
        *cell,
        Result("relaxed volume", float(relaxation.volume), none, "Å³/atom", volume),
        Result("relaxed enthalpy", float(relaxation.enthalpy), none, "eV/atom"),
        Result("largest force left", relaxation.fmax, none, "eV/Å"),
        Result("largest stress error left", relaxation.stress_error, none, "GPa"),
    ]


def _averages(log: np.ndarray) -> list[Result]:
    rows = settled(log)
    columns = (
        ("mean temperature", "temperature_K", "K"),
        ("mean pressure", "pressure_GPa", "GPa"),
        ("mean volume", "volume_A3_per_atom", "Å³/atom"),
        ("mean enthalpy", "enthalpy_eV_per_atom", "eV/atom"),
        ("mean bond length", "bond_length_A", "Å"),
        ("alignment with the start", "alignment", ""),
    )
    slope = drift(rows["time_ps"], rows["conserved_meV_per_atom"])
    return [
        *(Result(name, *block_average(rows[column]), unit) for name, column, unit in columns),
        Result("drift of conserved quantity", *slope, "meV/atom/ps"),
    ]


def _draw(folder: Path, log: np.ndarray, run: NPTRun, settings: DemoSettings) -> None:
    if len(log) < 4:
        return
    frames = read(folder / "trajectory.traj", ":")
    first = settled(log)["step"].min() if len(settled(log)) else log["step"].max() // 2
    warm = [f for n, f in enumerate(frames) if n * settings.npt.frame_interval >= first]
    pairs = run.molecules
    pictures = {
        "timeline.png": figures.timeline(log, settings.npt.pressure),
        "molecules.png": figures.molecules(warm or frames[-1:], frames[0], pairs),
        "levels.png": figures.levels(log),
        "conservation.png": figures.conservation(log),
        "crystal.png": figures.crystal(
            frames[0],
            frames[-1],
            pairs,
            ("relaxed", f"at {log['temperature_K'][-1]:.0f} K, {log['time_ps'][-1]:.1f} ps"),
        ),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / name)


def _model_facts(name: str, model) -> dict:
    return {
        "name": model.name,
        "sha256": model_hash(name),
        "written_by": f"ase_hmlp {model.package_version}",
        "domain": asdict(model.domain),
    }


def _versions() -> dict[str, str]:
    packages = ("ase_hmlp", "ase", "numpy", "scipy")
    return {"python": platform.python_version()} | {p: version(p) for p in packages}


def _finite(values: dict) -> dict:
    """NaN has no place in JSON."""
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()
    }


def _write_json(path: Path, data: dict) -> None:
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
