"""`hmlp run`: molecular dynamics that survives.

A run lives in a folder (see `ase_hmlp.simulate.run_folder`). Killed at any moment and started
again, it goes on from its last checkpoint, and ends with the same files, byte for byte, as one that
was never killed: see `ase_hmlp.simulate.dynamics`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write
from threadpoolctl import threadpool_limits

from ase_hmlp.analysis.source import trajectory_path
from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import ConfigError, DomainWarning, HMLPError, RunError
from ase_hmlp.files import write_whole
from ase_hmlp.lammps.program import find_command
from ase_hmlp.model_io import available_models, load_model, model_hash
from ase_hmlp.molecules import molecules_of
from ase_hmlp.sections import read_toml
from ase_hmlp.simulate import lammps_script
from ase_hmlp.simulate import run_folder as names
from ase_hmlp.simulate.build import thickness
from ase_hmlp.simulate.dynamics import Dynamics, stops
from ase_hmlp.simulate.lammps_dynamics import LammpsDynamics, LammpsWorkshop
from ase_hmlp.simulate.observables import Observables, bonds, log_line, read_log
from ase_hmlp.simulate.run_config import LammpsSection, RunConfig
from ase_hmlp.simulate.run_folder import GrowingText, GrowingTrajectory, RunFolder, header
from ase_hmlp.simulate.start import check, check_atoms, starting_structure
from ase_hmlp.simulate.summary import summarise

#: A cell is too thin when the distance of its closest faces is this part of what it was, or below
#: the cutoff of the model, unless it was less than about that to begin with.
HALF, ALMOST = 0.5, 0.8

#: Called as ``progress(step, steps, row)`` after every row of the log.
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Observer:
    """A function called every `interval` steps with the `Dynamics`."""

    function: Callable[[Dynamics], None]
    interval: int


class Run:
    """Molecular dynamics in a folder.

    Parameters
    ----------
    config : RunConfig
    folder : str or path
        Made if it is not there; a run with the same settings that was begun in it is continued.
    base : str or path
        That paths in `config` are relative to.
    atoms : ase.Atoms, optional
        The structure to start from, instead of ``config.structure``; with momenta, unless the
        first stage says a temperature.
    source : str, optional
        Text of the configuration, to be kept in the folder.

    Notes
    -----
    The momentum of the centre of mass is zero at the start, but for momenta that were given (with
    `atoms` or in a file), which are kept. Langevin thermostats give it one, that is taken away when
    a stage of another kind follows. Nosé-Hoover chains keep it as it is, and hold the mean kinetic
    energy at 3 n kT / 2 of all degrees of freedom: with the centre of mass at rest, temperatures of
    the rest are n / (n - 1) times higher.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: str | Path,
        base: str | Path = ".",
        atoms: Atoms | None = None,
        source: str | None = None,
    ):
        if (atoms is None) == (config.structure is None):
            raise ConfigError("A run needs a structure: in its configuration, or given as atoms.")
        self.config = config
        self.folder = Path(folder)
        self.base = Path(base)
        self.source = source
        self._given = atoms
        self._observers: list[Observer] = []
        model = config.model
        if model not in available_models():
            model = str(self.base / model)
        self._model = load_model(model)
        self._sha256 = model_hash(model)
        if config.structure is not None:
            check(config.structure, self.base, config.stages)
        if atoms is not None:
            check_atoms(atoms, config.stages, "The structure")
        if config.engine == "lammps":
            for number, stage in enumerate(config.stages, 1):
                lammps_script.check(stage.method, config.dynamics.times, number)

    def attach(self, function: Callable[[Dynamics], None], interval: int = 1) -> None:
        """Call a function during the run.

        Parameters
        ----------
        function : callable
            Called with the `Dynamics` (``.atoms``, ``.step``) after every `interval` steps. Steps
            that a continued run does again, it sees again.
        interval : int
        """
        if interval < 1:
            raise ValueError(f"interval must be at least 1, not {interval}")
        self._observers.append(Observer(function, interval))

    @property
    def record(self) -> dict[str, Any]:
        """What decides the results."""
        record = {"config": self.config.record, "model_sha256": self._sha256}
        if self._given is not None:
            record["structure_sha256"] = _digest(self._given)
        elif self.config.structure is not None and self.config.structure.file is not None:
            file = trajectory_path(self.base / self.config.structure.file)
            record["structure_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return record

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the run came to, if it has ended.

        Raises
        ------
        OutputExistsError
            If the folder holds something else.
        """
        return RunFolder(self.folder, self.record, reading=True).summary

    def run(
        self,
        progress: Progress | None = None,
        preparing: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Run to the end, from wherever the folder is.

        A run that failed is tried again, from its last checkpoint.

        Parameters
        ----------
        progress : callable, optional
            Called as ``progress(step, steps, row)`` with every row of the log, and at first.
        preparing : callable, optional
            Called with a word on how the structure is made.

        Returns
        -------
        dict
            The contents of ``summary.json``; of an earlier process, if that finished the run.

        Raises
        ------
        OutputExistsError
            If the folder holds something else.
        RunError
            If the dynamics failed, or could not be written.
        """
        with ExitStack() as closing:
            folder = RunFolder(self.folder, self.record)
            closing.callback(folder.close)
            summary = folder.summary
            if summary is not None and summary["status"] == "finished":
                return summary
            session = _Session(self, folder)
            closing.callback(session.end_lammps)
            closing.enter_context(threadpool_limits(1, user_api="blas"))
            # Closing writes what is left of a full disk's last frame, and fails again.
            closing.callback(session.close)
            return session.run(progress, preparing)


class _IntegrationError(Exception):
    """An integrator that cannot go on, such as with a cell that is not finite."""

    def __init__(self, error: Exception):
        self.kind = type(error).__name__
        super().__init__(f"The integrator met {self.kind}: {error}")


def _advance(dynamics: Dynamics, stop: int) -> None:
    try:
        dynamics.advance(stop)
    except HMLPError:
        raise
    except (ArithmeticError, ValueError) as error:
        raise _IntegrationError(error) from error


class _Session:
    """One process's part of a run."""

    def __init__(self, run: Run, folder: RunFolder):
        self.run_ = run
        self.config = run.config
        self.folder = folder
        self.seconds = 0.0
        self.above = False
        self.checkpointed: int | None = None
        self._closing = ExitStack()
        self._workshop = self._lammps() if self.config.engine == "lammps" else None

    # ------------------------------------------------------------ the engine

    def _lammps(self) -> LammpsWorkshop:
        config = self.config
        return LammpsWorkshop(
            self._path(names.LAMMPS),
            find_command(config.lammps.ranks, config.lammps.command),
            self.run_._model,
            config.seed,
            self._intervals(),
            config.write.properties,
        )

    def _dynamics(self, state: dict[str, np.ndarray]) -> Dynamics:
        """What goes on from a state."""
        parts = state, self.config.stages, self.config.dynamics.times, self._calculator()
        if self._workshop is None:
            return Dynamics.restored(*parts)
        return LammpsDynamics.continued(*parts, self._workshop, self.molecules)

    def _intervals(self) -> list[int]:
        """Steps between checkpoints, first, and between whatever else is due."""
        output = self.config.write
        intervals = [output.checkpoint_interval, output.sample_interval, output.frame_interval]
        return intervals + [observer.interval for observer in self.run_._observers]

    def end_lammps(self) -> None:
        """End what runs beside this process."""
        if self._workshop is not None:
            self._workshop.close()

    # ------------------------------------------------------------ the files

    def close(self) -> None:
        try:
            self._closing.close()
        except OSError:
            pass

    def _path(self, name: str) -> Path:
        return self.folder.path / name

    def _calculator(self) -> HMLP:
        return HMLP(self.run_._model, bonds=self.molecules, threads=self.config.threads)

    def _open(self, checkpoint: dict[str, np.ndarray] | None) -> None:
        """Open the growing files, cut to what the checkpoint has seen."""
        output = self.config.write
        log = events = trajectory = None
        if checkpoint is not None:
            log, events = int(checkpoint["log_size"]), int(checkpoint["events_size"])
            trajectory = (
                int(checkpoint["trajectory_size"]),
                checkpoint["trajectory_header"].tobytes(),
            )
        try:
            self.log = GrowingText(self._path(names.LOG), log)
            self._closing.callback(self.log.close)
            self.events = GrowingText(self._path(names.EVENTS), events)
            self._closing.callback(self.events.close)
            times = self.config.dynamics.times
            described = header(times, output.frame_interval, self.molecules)
            self.trajectory = GrowingTrajectory(
                self._path(names.TRAJECTORY), output.properties, described, trajectory
            )
            self._closing.callback(self.trajectory.close)
        except FileNotFoundError as error:
            raise RunError(
                f"{error.filename} is gone: the run cannot be continued, remove its folder."
            ) from error

    def _begin(self, preparing) -> Dynamics:
        """Build the structure, and take the first sample, frame and checkpoint."""
        run, config = self.run_, self.config
        if run.source is not None:
            write_whole(self._path(names.CONFIG), run.source)
        build, momenta, thermostat = (np.random.default_rng([config.seed, k]) for k in range(3))
        stages, times = config.stages, config.dynamics.times
        with warnings.catch_warnings():
            # Building passes through structures that the run never sees again.
            warnings.simplefilter("ignore", DomainWarning)
            atoms = self._structure(stages, build, momenta, preparing)
            partner = atoms.arrays.get("partner")
            known = None if partner is None else molecules_of(partner)
            atoms.calc = HMLP(run._model, bonds=known, threads=config.threads)
            atoms.get_potential_energy()
            self.molecules = atoms.calc.molecules
        self.axes = bonds(atoms, self.molecules)[1]
        write_whole(self._path(names.INITIAL), _extxyz(atoms))
        state = Dynamics(atoms, stages, times, thermostat).state()
        dynamics = self._dynamics(state)
        self._open(None)
        self.observables = Observables(self.molecules, self.axes)
        self.thinnest = self._thinnest(dynamics.atoms)
        self._columns_written = False
        with self._watching(dynamics):
            dynamics.atoms.get_forces()
            self._due(dynamics)
        return self._checkpoint(dynamics)

    def _structure(self, stages, build, momenta, preparing) -> Atoms:
        run, section = self.run_, self.config.structure
        first = stages[0]
        if section is not None:
            calculator = HMLP(run._model, threads=self.config.threads)
            return starting_structure(section, run.base, stages, calculator, build, preparing)
        assert run._given is not None
        atoms = run._given.copy()
        if not atoms.has("momenta"):
            from ase_hmlp.simulate.dynamics import draw_momenta

            if np.isnan(first.start.temperature):
                raise ConfigError("A run that starts with nve needs atoms with momenta.")
            draw_momenta(atoms, first.start.temperature, momenta)
        return atoms

    def _continue(self, checkpoint: dict[str, np.ndarray]) -> Dynamics:
        self.molecules, self.axes = checkpoint["molecules"], checkpoint["axes"]
        self.seconds, self.above = float(checkpoint["seconds"]), bool(checkpoint["above"])
        self.observables = Observables(self.molecules, self.axes)
        self._open(checkpoint)
        self._columns_written = True
        state = {
            name.removeprefix("state."): value
            for name, value in checkpoint.items()
            if name.startswith("state.")
        }
        dynamics = self._dynamics(state)
        # Checkpoints of earlier versions do not have it.
        thinnest = checkpoint.get("thinnest", self._thinnest(dynamics.atoms))
        self.thinnest = float(thinnest)
        return dynamics

    def _checkpoint(self, dynamics: Dynamics) -> Dynamics:
        """Save everything; the run goes on from what was saved, as another process would."""
        state = dynamics.state()
        session = self.folder.run["sessions"][-1]
        if session["versions"] != self._versions():  # LAMMPS says its version when it has started
            session["versions"] = self._versions()
            self.folder.write_json(names.RUN, self.folder.run)
        trajectory_size, trajectory_header = self.trajectory.mark()
        self.folder.save_checkpoint(
            {f"state.{name}": value for name, value in state.items()}
            | {
                "molecules": self.molecules,
                "axes": self.axes,
                "above": np.array(self.above),
                "thinnest": np.array(self.thinnest),
                "seconds": np.array(self._elapsed()),
                "log_size": np.array(self.log.mark()),
                "events_size": np.array(self.events.mark()),
                "trajectory_size": np.array(trajectory_size),
                "trajectory_header": np.frombuffer(trajectory_header, dtype=np.uint8),
            }
        )
        self.checkpointed = dynamics.step
        return self._dynamics(state)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._start

    def _versions(self) -> dict[str, str]:
        lammps = self._workshop.version if self._workshop is not None else ""
        return versions() | ({"lammps": lammps} if lammps else {})

    # ------------------------------------------------------------ running

    def run(self, progress, preparing) -> dict[str, Any]:
        self._start = time.perf_counter()
        self.step = 0
        try:
            checkpoint = self.folder.checkpoint
            if checkpoint is not None:
                self.step = self.checkpointed = int(checkpoint["state.step"])
            self.folder.begin_session(
                {
                    "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    "from_step": self.step,
                    "versions": versions(),
                }
            )
            self._path(names.SUMMARY).unlink(missing_ok=True)
            if self._workshop is not None:
                self._workshop.open()
            if checkpoint is None:
                dynamics = self._begin(preparing)
            else:
                dynamics = self._continue(checkpoint)
            self.step = dynamics.step
            if progress is not None:
                progress(dynamics.step, dynamics.steps, {})
            self._advance(dynamics, progress)
            return self._finish("finished")
        except OSError as error:
            if isinstance(error, HMLPError):
                raise
            what = f"{self.folder.path} cannot be written ({error.strerror or error})"
            if self.checkpointed is None:
                raise RunError(
                    f"{what}: the run has no checkpoint yet, and the same command begins it again."
                ) from error
            raise RunError(
                f"{what}: the run stopped at step {self.step}. Its checkpoint of step "
                f"{self.checkpointed} is whole, and the same command goes on from there."
            ) from error

    def _advance(self, dynamics: Dynamics, progress) -> None:
        output, steps = self.config.write, dynamics.steps
        for stop in stops(dynamics.step, steps, self._intervals()):
            with self._watching(dynamics):
                try:
                    _advance(dynamics, stop)
                    row = self._due(dynamics)
                except RunError:  # nothing is wrong with the structure
                    raise
                except (HMLPError, _IntegrationError) as error:
                    self._fail(dynamics, error)
            self.step = stop
            if row is not None and progress is not None:
                progress(stop, steps, row)
            if stop % output.checkpoint_interval == 0 or stop == steps:
                dynamics = self._checkpoint(dynamics)

    def _due(self, dynamics: Dynamics) -> dict[str, float] | None:
        """Write what is due at this step."""
        output, step = self.config.write, dynamics.step
        row = None
        if step % output.sample_interval == 0:
            every = output.deviation_interval
            wanted = bool(every) and step % every == 0 and self.run_._model.has_deviations
            row = self.observables.measure(dynamics, wanted)
            if not self._columns_written:
                self.log.append(log_line(row))
                self._columns_written = True
            self.log.append(log_line(row.values()))
            self._look_at_deviation(step, row)
            self._look_at_cell(step, dynamics.atoms)
        if step % output.frame_interval == 0:
            time_fs = step * self.config.dynamics.timestep
            self.trajectory.append(dynamics.atoms, {"step": step, "time_fs": time_fs})
        for observer in self.run_._observers:
            if step % observer.interval == 0:
                observer.function(dynamics)
        return row

    def _look_at_deviation(self, step: int, row: dict[str, float]) -> None:
        limit, value = self.threshold, row["deviation_meV_per_atom"]
        if limit is None or np.isnan(value):
            return
        if value > limit and not self.above:
            self._event(
                step,
                "deviation",
                f"The mean predicted deviation is {value:.3g} meV/atom, above {limit:.3g}.",
            )
        self.above = bool(value > limit)

    def _thinnest(self, atoms: Atoms) -> float:
        """Thickness (Å) of the cell below which is a warning, 0 if there is none."""
        if not atoms.pbc.all():
            return 0.0
        now, reach = thickness(atoms.cell).min(), self.run_._model.potential.cutoff
        return float(max(HALF * now, min(reach, ALMOST * now)))

    def _look_at_cell(self, step: int, atoms: Atoms) -> None:
        """Note once that the cell has lost its shape, or is too thin for the interactions."""
        if not self.thinnest:
            return
        if thickness(atoms.cell).min() < self.thinnest:
            self._event(
                step,
                "cell",
                f"Opposite faces of the cell have come within {self.thinnest:.2f} Å of each other: "
                'it collapses, or is too small. What may flow needs cell = "iso".',
            )
            self.thinnest = 0.0

    @property
    def threshold(self) -> float | None:
        """Mean predicted deviation (meV/atom) above which is a warning, if there is one."""
        return self.config.write.deviation_threshold

    def _event(self, step: int, kind: str, message: str) -> None:
        event = {"step": step, "kind": kind, "message": message}
        self.events.append(json.dumps(event, ensure_ascii=False) + "\n")

    @contextmanager
    def _watching(self, dynamics: Dynamics) -> Iterator[None]:
        """Write the calculator's warnings down, with the step they were given at."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", DomainWarning)
            show = warnings.showwarning

            def note(message, category, *args, **kwargs):
                if issubclass(category, DomainWarning):
                    self._event(dynamics.now, message.kind, str(message))
                else:
                    show(message, category, *args, **kwargs)

            warnings.showwarning = note
            yield

    def _fail(self, dynamics: Dynamics, error: HMLPError | _IntegrationError) -> None:
        """End a run whose structure has no energy any more."""
        step = dynamics.now
        self.step = step
        reason = " ".join(str(error).split())
        self._event(step, "failed", reason)
        write_whole(self._path(names.FAILED), _extxyz(dynamics.atoms))
        kind = error.kind if isinstance(error, _IntegrationError) else type(error).__name__
        self._finish("failed", error=kind, reason=reason)
        raise RunError(f"The run in {self.folder.path} failed at step {step}: {reason}") from error

    def _finish(self, status: str, **more) -> dict[str, Any]:
        log = read_log(self._path(names.LOG))
        events = read_events(self._path(names.EVENTS))
        summary = {
            "status": status,
            **more,
            "steps": self.step,
            "time_ps": self.step * self.config.dynamics.timestep / 1000.0,
            **summarise(log, events, self.config, self.run_._model.domain, self.threshold),
            "atoms": 2 * len(self.molecules),
            "model": {
                "name": self.run_._model.name,
                "sha256": self.run_._sha256,
                "written_by": f"ase_hmlp {self.run_._model.package_version}",
                "domain": asdict(self.run_._model.domain),
            },
            "versions": self._versions(),
            "seconds": round(self._elapsed(), 2),
        }
        self.folder.write_json(names.SUMMARY, summary)
        return json.loads(self._path(names.SUMMARY).read_text(encoding="utf-8"))


def run_from_config(
    path: str | Path,
    output: str | Path | None = None,
    progress: Progress | None = None,
    preparing: Callable[[str], None] | None = None,
    engine: str | None = None,
    ranks: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run what a TOML file describes; see `Run.run`.

    Parameters
    ----------
    path : str or path
    output : str or path, optional
        Folder, instead of the one the file names.
    progress, preparing : callable, optional
    engine : "ase" or "lammps", optional
        Instead of the one the file names.
    ranks : int, optional
        MPI processes of engine lammps, instead of what the file says.

    Returns
    -------
    summary : dict
    folder : Path
    """
    path = Path(path)
    config = read_toml(path, RunConfig, [f"engine = {json.dumps(engine)}"] if engine else [])
    if ranks is not None:
        if config.engine != "lammps":
            raise ConfigError("Ranks are for engine lammps; engine ase takes threads.")
        config = config.model_copy(update={"lammps": LammpsSection(ranks=ranks)})
    if config.structure is None:
        raise ConfigError(f"Configuration {path}: missing key 'structure'.")
    if output is None:
        output = path.parent / (config.output or path.stem)
    folder = Path(output)
    run = Run(config, folder, path.parent, source=path.read_text())
    return run.run(progress, preparing), folder


def read_events(path: str | Path) -> list[dict[str, Any]]:
    """Events of a run: dicts with ``step``, ``kind`` and ``message``, in order."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def versions() -> dict[str, str]:
    """Versions of what a run was computed with."""
    packages = ("ase_hmlp", "ase", "numpy", "scipy")
    return {"python": platform.python_version()} | {p: version(p) for p in packages}


def _digest(atoms: Atoms) -> str:
    digest = hashlib.sha256()
    for values in (
        atoms.numbers.astype(np.int64),
        atoms.get_masses(),
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.get_momenta() if atoms.has("momenta") else np.zeros(0),
    ):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _extxyz(atoms: Atoms) -> str:
    import io

    bare = atoms.copy()
    stream = io.StringIO()
    write(stream, bare, format="extxyz")
    return stream.getvalue()
