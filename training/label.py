"""Labelling: structures in, energies, forces and stress of an ASE calculator out.

Each frame is written as it finishes, so that a kill at any moment costs at most the frames in
flight, and another run goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, strftime
from typing import Annotated, Any

import joblib
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pydantic import Field, PositiveFloat

from ase_hmlp.errors import ConfigError, DataError, HMLPError, LabelError, LabellingError
from ase_hmlp.files import write_whole
from ase_hmlp.parallel import WorkersSection, stop, unordered
from ase_hmlp.training.append_only import RecordFile, split_frames, split_lines
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label_calculators import (
    ABOUT_LABELS,
    ASESection,
    EspressoSection,
    Labeller,
    Labels,
)
from ase_hmlp.training.sections import Section, read_toml


class RunSection(WorkersSection):
    """How many calculations at a time, and where.

    Attributes
    ----------
    keep_failed : keep the folder of a failed calculation in ``<output>.failed-runs``
    stop_after : failures in a row that mean something else is wrong; 0 for no limit. What had
        failed before and is tried again does not count
    """

    keep_failed: bool = False
    stop_after: int = Field(default=20, ge=0)


class CheckSection(Section):
    """What a calculation must pass, beyond finite numbers.

    Attributes
    ----------
    stress : whether a frame that is periodic in three directions must have it
    net_force : largest force on the centre of mass, divided by the number of atoms, eV/Å
    """

    stress: bool = True
    net_force: PositiveFloat = 0.01


class LabelSection(Section):
    """What labels, how, and what labels must pass."""

    calculator: Annotated[EspressoSection | ASESection, Field(discriminator="kind")]
    run: RunSection = RunSection()
    checks: CheckSection = CheckSection()


class LabelConfig(LabelSection):
    """A whole labelling run. Paths are relative to the configuration file."""

    input: list[str] = Field(min_length=1)
    output: str = Field(pattern=r"\.(ext)?xyz$")


@dataclass(frozen=True)
class LabelResult:
    """What a labelling run did.

    Attributes
    ----------
    output, failures : Path
        Labelled frames, and the failed ones with their reasons (there may be none of either).
    labelled, failed : int
        Frames of this run.
    already, set_aside : int
        Frames that earlier runs labelled, and that they failed on and this one did not retry.
    duplicates : int
        Structures that the input holds more than once; each is labelled once.
    cut : int
        Bytes of a half-written frame that were cut off the output.
    seconds : float
        Wall time.
    """

    output: Path
    failures: Path
    labelled: int
    failed: int
    already: int
    set_aside: int
    duplicates: int
    cut: int
    seconds: float


@dataclass(frozen=True)
class _Outcome:
    """One calculation: `frame` (extended XYZ) or `failure` (a line of JSON)."""

    digest: str
    frame: str = ""
    failure: str = ""
    reason: str = ""


def label_from_config(
    path, retry_failed: bool = False, progress: Callable[[str, int, int], None] | None = None
) -> LabelResult:
    """Run the labelling a configuration file describes; see `label_frames`.

    Raises
    ------
    ConfigError, DataError, LabellingError
    """
    path = Path(path)
    config = read_toml(path, LabelConfig)
    base = path.parent
    output = base / config.output
    inputs = [base / name for name in config.input]
    if output.resolve() in [file.resolve() for file in inputs]:
        raise ConfigError(f"Configuration {path}: {config.output} is both input and output.")
    labeller = config.calculator.labeller(base)
    frames = [atoms for file in inputs for atoms in iterate_structures(file)]
    return label_frames(frames, output, labeller, config.run, config.checks, retry_failed, progress)


def label_frames(
    frames: Iterable[Atoms],
    output,
    labeller: Labeller,
    run: RunSection | None = None,
    checks: CheckSection | None = None,
    retry_failed: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> LabelResult:
    """Label the structures that an output file does not hold yet.

    Frames keep their ``info`` and arrays, lose whatever labels they had, and are written in the
    order they finish in. A labelled frame has in its ``info``

    - ``label``: code, version and settings,
    - ``label_date``, ``label_seconds`` (wall time) and, from Quantum ESPRESSO, ``cpu_seconds``,
      ``pulay`` (see `ase_hmlp.training.frames.corrected_stress`) and, of two meshes,
      ``mesh_error``,
    - ``label_id``, a digest of the structure, and ``label_settings``, one of the settings.

    What fails, or has not converged, goes to ``<stem of output>.failed.jsonl`` with the reason
    and the structure.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    output : str or Path
        Extended XYZ file to append to.
    labeller : Labeller
        From `EspressoSection.labeller` or `ASESection.labeller`.
    run, checks : optional
    retry_failed : bool
        Try again what earlier runs set aside.
    progress : callable, optional
        Called with a stage, the frames done and the frames in all.

    Raises
    ------
    ConfigError
        If the output was labelled under other settings, or the joblib backend is not there.
    DataError
        If the output is no file of this function's.
    OutputExistsError
        If another run is writing to it.
    LabellingError
        If one calculation after the other fails, or kills the process it runs in.
    """
    start = perf_counter()
    output = Path(output)
    run, checks = run or RunSection(), checks or CheckSection()
    unique, duplicates = _by_digest(frames)
    failures = output.with_suffix(".failed.jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = RecordFile(output, split_frames)
    except DataError as error:
        raise DataError(f"Output {output} is not extended XYZ: {error}.") from error
    with done:
        finished = _finished(done.records, output, labeller.settings)
        aside = _tidy_failures(failures, set(finished))
        skipped = set() if retry_failed else set(aside) & set(unique)
        missing = {d: a for d, a in unique.items() if d not in finished and d not in skipped}
        already = len(set(unique) & set(finished))
        # Folders of a killed run are in there too; the lock on the output makes this one ours.
        # Workers that outlived it find theirs gone and do nothing more.
        scratch = output.with_name(f"{output.name}.scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        labelled = failed = 0
        now: set[str] = set()
        in_flight = ExitStack()
        if missing:
            kept = output.with_name(f"{output.name}.failed-runs") if run.keep_failed else None
            scratch.mkdir()
            try:
                stream = _start(
                    missing,
                    labeller,
                    checks,
                    Path(tempfile.mkdtemp(dir=scratch.resolve())),
                    kept and kept.resolve(),
                    run,
                )
                in_flight.callback(stop, stream)  # ends the calculations in flight
                with RecordFile(failures, split_lines) as failed_file:
                    in_a_row = 0
                    _report(progress, 0, len(missing))
                    for outcome in stream:
                        if outcome.frame:
                            done.append(outcome.frame)
                            now.update(_ids([outcome.frame]))
                            labelled, in_a_row = labelled + 1, 0
                        else:
                            failed_file.append(outcome.failure)
                            failed += 1
                            in_a_row += outcome.digest not in aside
                        _report(progress, labelled + failed, len(missing))
                        if run.stop_after and in_a_row >= run.stop_after:
                            raise LabellingError(
                                f"{in_a_row} calculations in a row failed, the last one: "
                                f"{outcome.reason}."
                            )
            except TerminatedWorkerError as error:
                raise LabellingError(
                    "A calculation killed the process it ran in (memory?); what had finished is "
                    f"in {output}."
                ) from error
            finally:
                in_flight.close()
                shutil.rmtree(scratch, ignore_errors=True)
        _tidy_failures(failures, set(finished) | now)
    return LabelResult(
        output,
        failures,
        labelled,
        failed,
        already,
        len(skipped),
        duplicates,
        done.cut,
        perf_counter() - start,
    )


def structure_digest(atoms: Atoms) -> str:
    """What identifies a structure: elements, positions and cell to 1e-6 Å, and periodicity."""
    numbers = np.concatenate([atoms.positions.ravel(), atoms.cell.array.ravel()])
    rounded = np.round(numbers, 6) + 0.0  # no negative zeros
    digest = hashlib.sha256(rounded.tobytes())
    digest.update(atoms.numbers.astype(np.int64).tobytes() + bytes(atoms.pbc.tolist()))
    # The letter keeps readers of extended XYZ from taking digits for a number.
    return "h" + digest.hexdigest()[:23]


def _by_digest(frames: Iterable[Atoms]) -> tuple[dict[str, Atoms], int]:
    unique: dict[str, Atoms] = {}
    count = 0
    for atoms in frames:
        count += 1
        unique.setdefault(structure_digest(atoms), atoms)
    return unique, count - len(unique)


def _start(missing, labeller, checks, scratch, kept, run: RunSection):
    """Outcomes of the calculations, as they finish."""
    tasks = (
        joblib.delayed(_label_one)(digest, atoms, labeller, checks, scratch, kept)
        for digest, atoms in missing.items()
    )
    return unordered(tasks, run, "run")


def _label_one(digest, atoms, labeller: Labeller, checks: CheckSection, scratch, kept) -> _Outcome:
    """Label one structure, in whatever process this runs; only an interruption raises."""
    folder = Path(tempfile.mkdtemp(prefix=f"{digest}-", dir=scratch))
    try:
        start = perf_counter()
        bare = atoms.copy()
        bare.set_constraint()
        if not (np.isfinite(bare.positions).all() and np.isfinite(bare.cell.array).all()):
            raise DataError("positions or cell are not finite")
        labels = labeller.compute(bare, folder)
        _check(labels, atoms, checks)
        provenance = {
            "label": labels.label,
            "label_id": digest,
            "label_settings": labeller.settings,
            "label_date": strftime("%Y-%m-%dT%H:%M:%S%z"),
            "label_seconds": round(perf_counter() - start, 2),
            **labels.info,
        }
        return _Outcome(digest, frame=_frame_text(atoms, labels, provenance))
    except Exception as error:  # one bad frame must not end the run
        reason = " ".join(str(error).split())
        if not isinstance(error, HMLPError):
            reason = f"{type(error).__name__}: {reason}"
        if kept is not None:
            shutil.copytree(folder, kept / digest, dirs_exist_ok=True)
        line = _failure_line(digest, atoms, labeller, reason)
        return _Outcome(digest, failure=line, reason=reason)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(labels: Labels, atoms: Atoms, checks: CheckSection) -> None:
    """Refuse labels that no fit should see."""
    n = len(atoms)
    shapes: dict[str, tuple[Any, tuple]] = {
        "energy": (labels.energy, ()),
        "forces": (labels.forces, (n, 3)),
    }
    if labels.stress is not None:
        shapes["stress"] = (labels.stress, (6,))
    elif checks.stress and atoms.pbc.all():
        raise LabelError("the calculator gives no stress")
    for name, (value, shape) in shapes.items():
        value = np.asarray(value, dtype=float)
        if value.shape != shape:
            raise LabelError(f"{name} of shape {value.shape}, not {shape}")
        if not np.isfinite(value).all():
            raise LabelError(f"{name} not finite")
    net = float(np.linalg.norm(labels.forces.sum(axis=0))) / n
    if net > checks.net_force:
        raise LabelError(
            f"net force of {net:.3g} eV/Å per atom, more than {checks.net_force:g} allowed"
        )


def _frame_text(atoms: Atoms, labels: Labels, provenance: dict[str, Any]) -> str:
    frame = atoms.copy()
    frame.set_constraint()  # extended XYZ would keep them as a column of booleans
    for key in ABOUT_LABELS:
        frame.info.pop(key, None)  # another calculation's: its Pulay stress is not these labels'
    frame.info.update(provenance)
    results = {"energy": labels.energy, "forces": labels.forces}
    if labels.stress is not None:
        results["stress"] = labels.stress
    frame.calc = SinglePointCalculator(frame, **results)
    text = extxyz_text(frame)
    if len(split_frames(text.encode())) != 1 or _ids([text]) != [provenance["label_id"]]:
        raise DataError("its info cannot be written as extended XYZ")
    return text


def extxyz_text(atoms: Atoms) -> str:
    """One frame of an extended XYZ file."""
    stream = io.StringIO()
    write(stream, atoms, format="extxyz")
    return stream.getvalue()


def _failure_line(digest: str, atoms: Atoms, labeller: Labeller, reason: str) -> str:
    try:
        structure = atoms.copy()
        structure.set_constraint()
        text = extxyz_text(structure)
    except Exception:  # what is in info or arrays may be the reason: then without
        text = extxyz_text(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    record = {
        "label_id": digest,
        "source": str(atoms.info.get("source", "")),
        "reason": reason,
        "date": strftime("%Y-%m-%dT%H:%M:%S%z"),
        "label_settings": labeller.settings,
        "extxyz": text,
    }
    return json.dumps(record) + "\n"


def read_failures(path) -> list[dict[str, Any]]:
    """Failed frames of a labelling run.

    Parameters
    ----------
    path : str or Path
        ``<stem of output>.failed.jsonl``

    Returns
    -------
    list of dict
        The last failure of each frame: ``label_id``, ``source``, ``reason``, ``date``,
        ``label_settings`` and the structure as ``extxyz``.

    Raises
    ------
    DataError
        If it is another kind of file.
    """
    path = Path(path)
    if not path.exists():
        return []
    latest: dict[str, dict[str, Any]] = {}
    for n, line in enumerate(split_lines(path.read_bytes()), start=1):
        try:
            record = json.loads(line)
            latest[record["label_id"]] = record
        except (ValueError, KeyError, TypeError):
            raise DataError(f"Line {n} of {path} is no record of a failed frame.") from None
    return list(latest.values())


def _tidy_failures(path: Path, finished: set[str]) -> list[str]:
    """Keep the last failure of each frame that has no label yet; return their digests."""
    records = [r for r in read_failures(path) if r["label_id"] not in finished]
    if path.exists():
        text = "".join(json.dumps(record) + "\n" for record in records)
        if not records:
            path.unlink()
        elif text.encode() != path.read_bytes():
            write_whole(path, text)
    return [record["label_id"] for record in records]


def _finished(records: list[str], output: Path, settings: str) -> dict[str, str]:
    """Records of an output file by digest."""
    ids = _ids(records)
    if len(ids) != len(records):
        raise DataError(f"Output {output} holds frames that hmlp label did not write.")
    if any(f"label_settings={settings} " not in record for record in records):
        raise ConfigError(
            f"Output {output} holds frames labelled under other settings, or with other files of "
            "them; give another output."
        )
    return dict(zip(ids, records, strict=True))


def _ids(records: list[str]) -> list[str]:
    """Digests of labelled frames, from their comment lines."""
    found = (re.search(r"\blabel_id=(h\w+)", record.split("\n", 2)[1]) for record in records)
    return [match[1] for match in found if match]


def _report(progress, done: int, total: int) -> None:
    if progress is not None:
        progress("labelling", done, total)
