"""Import: labelled frames of other codes in, frames fit for training out, reasons for the rest."""

from __future__ import annotations

import csv
import io
import lzma
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from ase_hmlp import __version__
from ase_hmlp.errors import ConfigError, DataError, LabelError, OutputExistsError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import available_models, load_model, model_hash, model_path
from ase_hmlp.molecules import partners
from ase_hmlp.training.external import ReadSection
from ase_hmlp.training.fit import silent
from ase_hmlp.training.frames import Frame, check_family, frame_from_atoms
from ase_hmlp.training.limits import Limits
from ase_hmlp.training.residuals import (
    OutlierSection,
    check_stiffness,
    check_units,
    residuals,
)
from ase_hmlp.training.sections import Section, read_toml

#: What a run may leave in its folder.
FRAMES, TRAIN, TEST, ASIDE = (
    f"{name}.extxyz.xz" for name in ("frames", "train", "test", "set-aside")
)
TABLE, REPORT = "frames.csv", "report.md"

#: What stays in ``info`` beside names: whether any fit may see the frame, and what is true of its
#: labels as `ase_hmlp.training.label` wrote them.
KEPT = ("split", "pulay", "mesh_error")

#: Reasons to be set aside that are most often a wrong unit of forces, if many frames have them.
FORCE_KINDS = ("force", "net force")

#: Zeros of energy differ by less than this, eV/atom: two codes' by a few, molecules at rest from
#: free electrons and protons by 16.
LARGEST_ZERO = 50.0


class ImportLimits(Limits):
    """What a frame must stay within; the defaults make it fully molecular.

    Every atom has one neighbour within `min_contact` and that is within `max_bond`.
    """

    min_bond: PositiveFloat | None = 0.6
    max_bond: PositiveFloat | None = 1.0
    min_contact: NonNegativeFloat | None = 1.0
    max_force: PositiveFloat | None = 10.0
    max_net_force: PositiveFloat | None = 0.01


class FamilySection(Section):
    r"""Which family a frame is of: frames of one family are never split.

    Attributes
    ----------
    key : where the name is in ``atoms.info``: "source", which is ``<stem of the file>/<index>``
        where a file does not say; "comment" in n2p2's and RuNNer's files
    pattern : regular expression; its first group, or all it finds, is the family
    prefix : put in front
    """

    key: str = "source"
    pattern: str = "^[^/]+"
    prefix: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return text

    def name(self, info: dict, where: str) -> str:
        """The family of a frame with this ``atoms.info``.

        Raises
        ------
        DataError
            If there is no such key, nothing in it matches, or the family may not be called so.
        """
        if self.key not in info:
            raise DataError(f"{where} has no {self.key!r} to take its family from.")
        text = str(info[self.key])
        match = re.search(self.pattern, text)
        found = match and (match[1] if match.re.groups else match[0])
        if not found:
            raise DataError(f"{where}: no family in {text!r} by the pattern {self.pattern!r}.")
        check_family(self.prefix + found, where)
        return self.prefix + found


class ReferenceSection(Section):
    """A model to hold labels against: for signs, units and `OutlierSection`.

    Attributes
    ----------
    model : shipped name or path, relative to the configuration file; empty for none, which leaves
        only the sign and size of the forces along the bonds to be checked
    """

    model: str = "h2-pbe"


class ImportConfig(Section):
    """A whole import. Paths are relative to the configuration file.

    Attributes
    ----------
    name : of the source, ``info["source_set"]`` of every frame: the fit gives it an energy zero
    description : code, version, settings; becomes ``info["label"]``
    input : files
    test : families that go to a file of their own
    outliers : no rule on residuals unless given
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    input: list[str] = Field(default_factory=list)
    test: list[str] = Field(default_factory=list)
    read: ReadSection = ReadSection()
    family: FamilySection = FamilySection()
    limits: ImportLimits = ImportLimits()
    reference: ReferenceSection = ReferenceSection()
    outliers: OutlierSection | None = None

    @model_validator(mode="after")
    def _consistent(self):
        if self.outliers and not self.reference.model:
            raise ValueError("outliers need a reference.model")
        return self


@dataclass
class Record:
    """One frame of the input and what became of it.

    Attributes
    ----------
    file, index : where it was, the index counted in its file
    atoms : as it is written
    frame : None if it is none
    reason : why it was set aside; empty if it was not
    kind : the reason in a word or two
    energy_residual, force_residual : against the reference, eV/atom from the median of all kept
        frames and eV/Å; NaN if not computed
    """

    file: str
    index: int
    atoms: Atoms
    frame: Frame | None = None
    reason: str = ""
    kind: str = ""
    energy_residual: float = float("nan")
    force_residual: float = float("nan")

    def set_aside(self, kind: str, reason: str) -> None:
        """Note why the frame is not kept."""
        self.kind, self.reason = kind, " ".join(reason.split()).rstrip(".")


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes
    ----------
    folder : Path
    files : names of what was written, and how many frames are in it
    records : list of Record
    checks : slopes of labels over predictions, or the bond's stiffness
    zero : energy zero of the source above the reference's, eV/atom; NaN without reference
    """

    folder: Path
    files: dict[str, int]
    records: list[Record]
    checks: dict[str, float]
    zero: float

    @property
    def kept(self) -> int:
        """How many frames are fit for training."""
        return sum(not record.reason for record in self.records)

    @property
    def reasons(self) -> Counter:
        """How many frames were set aside for what."""
        return Counter(record.kind for record in self.records if record.reason)


Progress = Callable[[str, int, int], None]


def import_from_config(
    path, files=(), output=None, overwrite: bool = False, progress: Progress = silent
) -> ImportResult:
    """Import what a configuration file describes.

    Parameters
    ----------
    path : str or Path
        TOML file, see `ImportConfig`.
    files : sequence of paths
        In place of the configuration's `input`.
    output : str or Path, optional
        Folder; ``NAME-import`` beside the configuration unless given.
    overwrite : bool
        Replace what an earlier import left there.
    progress : callable
        Called with a stage, the steps done and the steps in all.

    Returns
    -------
    ImportResult
        The folder has the kept frames (``frames.extxyz.xz``, or ``train`` and ``test``), those set
        aside with ``info["reason"]``, a table with a line for each frame, and a report.

    Raises
    ------
    ConfigError, DataError, OutputExistsError
    """
    path = Path(path)
    config = read_toml(path, ImportConfig)
    inputs = [Path(f) for f in files] or [path.parent / name for name in config.input]
    if not inputs:
        raise ConfigError(f"Configuration {path} has no input, and no file was given.")
    folder = Path(output) if output else path.parent / f"{config.name}-import"
    there = [n for n in (FRAMES, TRAIN, TEST, ASIDE, TABLE, REPORT) if (folder / n).exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{folder} holds {there[0]} already; ask for it to be overwritten.")
    model = _reference(config, path.parent)
    records = _read(config, inputs, progress)
    usable = [record for record in records if not record.reason]
    _look_at_forces(model, records, usable, progress)
    if not usable:
        raise DataError(_nothing_usable(records))
    checks, zero = _judge(config, model, usable, progress)
    kept = [record for record in usable if not record.reason]
    families = {str(record.atoms.info["group"]) for record in kept}
    if missing := set(config.test) - families:
        raise ConfigError(f"test names families that no kept frame is of: {sorted(missing)}.")
    parts = _parts(config, records)
    sizes = {name: len(part) for name, part in parts.items()}
    result = ImportResult(folder, sizes, records, checks, zero)
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(there) - set(parts):
        (folder / name).unlink()
    for name, part in parts.items():
        write_whole(folder / name, lzma.compress(_extxyz(part).encode()))
    write_whole(folder / TABLE, _table(records))
    lines = [f"# {config.name}", "", *report_lines(result), "", *_settings(path, model)]
    write_whole(folder / REPORT, "\n".join(lines))
    return result


def report_lines(result: ImportResult) -> list[str]:
    """What an import did, in Markdown."""
    total = len(result.records)
    files = sorted({record.file for record in result.records})
    lines = [
        f"{total} frames of {', '.join(files)}: {result.kept} kept, {total - result.kept} set "
        f"aside, each with its reason in {TABLE} and {ASIDE}.",
        "",
    ]
    lines += [f"- {n} set aside: {kind}" for kind, n in result.reasons.most_common()]
    of = {"stiffness": "bond, eV/Å²"}
    lines += [
        f"- {of.get(name, f'{name}, label over prediction')}: {value:.3g}"
        for name, value in result.checks.items()
    ]
    if np.isfinite(result.zero):
        lines.append(
            f"- energy zero: {1e3 * result.zero:+.2f} meV/atom above the reference's (median)"
        )
    families: dict[str, list[Record]] = {}
    for record in result.records:
        families.setdefault(record.atoms.info["group"], []).append(record)
    lines += [
        "",
        "| family | frames | kept | atoms | Å³/atom | energy, meV/atom | force, meV/Å |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, records in sorted(families.items()):
        kept = [record for record in records if not record.reason]
        atoms = _span([float(len(record.atoms)) for record in kept])
        volume = _span([record.atoms.get_volume() / len(record.atoms) for record in kept])
        energy = _median([1e3 * abs(record.energy_residual) for record in kept])
        force = _median([1e3 * record.force_residual for record in kept])
        lines.append(
            f"| {name} | {len(records)} | {len(kept)} | {atoms} | {volume} | {energy} | {force} |"
        )
    lines += [
        "",
        "Energy and force: what the reference leaves of the kept frames' labels; medians of the "
        "absolute residual per atom and of the root mean square residual of a frame.",
    ]
    return lines


def _span(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if values else ""


def _median(values: list[float]) -> str:
    return f"{np.median(values):.3g}" if values and np.isfinite(values).all() else ""


# ---------------------------------------------------------------- steps


def _reference(config: ImportConfig, base: Path) -> str:
    """Shipped name or path of the reference; empty if there is none."""
    name = config.reference.model
    if name and name not in available_models():
        name = str(base / name)
        model_path(Path(name))  # missing files are said before anything is read
    return name


def _read(config: ImportConfig, inputs: list[Path], progress: Progress) -> list[Record]:
    """Every frame of the input, with a reason where no potential is needed to see one."""
    records: list[Record] = []
    digests: dict[int, Record] = {}
    sources = set()
    for done, file in enumerate(inputs):
        progress("files", done, len(inputs))
        for index, atoms in enumerate(config.read.structures(file)):
            where = f"Frame {index} of {file}"
            stem = file.name.split(".")[0]
            known = {"source": f"{stem}/{index}", **atoms.info}
            info = {
                "group": config.family.name(known, where),
                "source": f"{config.name}/{known['source']}",
                "source_set": config.name,
                "label": config.description,
                "parent": atoms.info.get("parent", ""),
                "comment": atoms.info.get("comment", ""),
                **{key: atoms.info[key] for key in KEPT if key in atoms.info},
            }
            atoms.info = {key: value for key, value in info.items() if value}
            sources.add(str(known["source"]))
            record = Record(file.name, index, atoms)
            records.append(record)
            _look(record, config.limits, digests)
    progress("files", len(inputs), len(inputs))
    for record in records:
        # Called as the parent is from now on; one that is not imported keeps its name.
        parent = str(record.atoms.info.get("parent", ""))
        if parent in sources:
            record.atoms.info["parent"] = f"{config.name}/{parent}"
    if not records:
        raise DataError(f"There is no frame in {', '.join(map(str, inputs))}.")
    return records


def _look(record: Record, limits: Limits, digests: dict[int, Record]) -> None:
    """Set a frame aside that is none, is outside the limits or was there before."""
    try:
        frame = frame_from_atoms(record.atoms, "The frame")
    except LabelError as error:
        return record.set_aside("labels missing or of the wrong kind", str(error))
    except DataError as error:
        text = str(error).removeprefix("The frame: ")
        return record.set_aside("not molecular hydrogen", text)
    record.frame = frame
    record.atoms.set_array("partner", partners(frame.molecules))
    if violations := limits.violations(frame):
        return record.set_aside(violations[0].split(" of ")[0], "; ".join(violations))
    first = digests.setdefault(frame.digest, record)
    if first is not record:
        where = f"frame {first.index} of {first.file}"
        record.set_aside("duplicate", f"the same frame as {first.atoms.info['source']} ({where})")


def _look_at_forces(
    model: str, records: list[Record], usable: list[Record], progress: Progress
) -> None:
    """Check units before frames are set aside for what may be the wrong unit of their forces."""
    large = [record.frame for record in records if record.frame and record.kind in FORCE_KINDS]
    if len(large) <= len(usable):
        return
    some = [large[k] for k in np.unique(np.linspace(0, len(large) - 1, 100).astype(int))]
    if model:
        check_units(residuals(load_model(model).potential, some, progress))
    else:
        check_stiffness(some)


def _judge(
    config: ImportConfig, model: str, usable: list[Record], progress: Progress
) -> tuple[dict[str, float], float]:
    """Check units and set outliers aside; slopes and the source's energy zero."""
    frames = [record.frame for record in usable if record.frame]
    if not model:
        return check_stiffness(frames), float("nan")
    left = residuals(load_model(model).potential, frames, progress)
    checks = check_units(left)
    if config.outliers:
        reasons = config.outliers.outliers(left, [frame.group for frame in frames])
        for record, reason in zip(usable, reasons, strict=True):
            if reason:
                record.set_aside("outlier", reason)
    zero = float(np.median(left.energy[[not record.reason for record in usable]]))
    if abs(zero) > LARGEST_ZERO:
        raise DataError(
            f"Energies are {zero:.4g} eV/atom away from the reference's, more than any choice of "
            "zero makes: is read.energy right, and read.energy_of?"
        )
    for record, energy, force in zip(usable, left.energy, left.force, strict=True):
        record.energy_residual, record.force_residual = energy - zero, force
    return checks, zero


def _nothing_usable(records: list[Record]) -> str:
    """One sentence for a file of which no frame is fit for use: most often a matter of units."""
    (kind, n), *_ = Counter(record.kind for record in records).most_common(1)
    example = next(record for record in records if record.kind == kind)
    near = _nearest(example.atoms)
    return (
        f"None of {len(records)} frames is fit for training, most often ({n}) for: {kind}; "
        f"frame {example.index} of {example.file}: {example.reason}. Nearest neighbours are "
        f"{near:.2f} Å apart there (median), the atoms of a molecule 0.74 Å: is read.length right?"
    )


def _nearest(atoms: Atoms) -> float:
    """Median distance of an atom to its nearest neighbour, Å."""
    if len(atoms) < 2 or not np.isfinite(atoms.positions).all():
        return float("nan")
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    np.fill_diagonal(distances, np.inf)
    return float(np.median(distances.min(axis=1)))


# ---------------------------------------------------------------- what is written


def _parts(config: ImportConfig, records: list[Record]) -> dict[str, list[Atoms]]:
    """Frames by the file they go to; no file without frames."""
    parts: dict[str, list[Atoms]] = {}
    for record in records:
        atoms = record.atoms
        if record.reason:
            name = ASIDE
            atoms.info["reason"] = record.reason
        elif not config.test:
            name = FRAMES
        else:
            of_test = atoms.info["group"] in config.test or atoms.info.get("split") == "test"
            name = TEST if of_test else TRAIN
        parts.setdefault(name, []).append(atoms)
    return parts


def _extxyz(frames: list[Atoms]) -> str:
    stream = io.StringIO()
    write(stream, frames, format="extxyz")
    return stream.getvalue()


def _table(records: list[Record]) -> str:
    """A line for each frame of the input."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(
        (
            *(
                "file",
                "index",
                "source",
                "family",
                "atoms",
                "volume_A3_per_atom",
                "shortest_bond_A",
            ),
            *("longest_bond_A", "shortest_contact_A", "largest_force_eV_per_A"),
            *("energy_residual_meV_per_atom", "force_residual_meV_per_A", "kept", "reason"),
        )
    )
    for record in records:
        frame, info = record.frame, record.atoms.info
        numbers: list[float] = []
        if frame:
            bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
            numbers = [
                frame.volume / frame.n_atoms,
                bonds.min(),
                bonds.max(),
                frame.shortest_contact,
                np.linalg.norm(frame.forces, axis=1).max(),
                1e3 * record.energy_residual,
                1e3 * record.force_residual,
            ]
        cells = [f"{x:.5g}" if np.isfinite(x) else "" for x in numbers] or [""] * 7
        table.writerow(
            (
                *(record.file, record.index, info["source"], info["group"], len(record.atoms)),
                *cells,
                "no" if record.reason else "yes",
                record.reason,
            )
        )
    return stream.getvalue()


def _settings(path: Path, model: str) -> list[str]:
    """How to do it again."""
    reference = f"Reference {model}, SHA-256 `{model_hash(model)}`." if model else "No reference."
    return [
        *(reference, "", f"Written by ase_hmlp {__version__} with this configuration:", ""),
        *("```toml", path.read_text().rstrip(), "```", ""),
    ]
