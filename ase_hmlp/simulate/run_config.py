"""The configuration of a run: a TOML file, every key checked; the same from Python."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ase_hmlp.sections import Section
from ase_hmlp.simulate.dynamics import Stage
from ase_hmlp.simulate.integrators import Cell, Ensemble, Method, Target, Thermostat, Times
from ase_hmlp.simulate.melt import Melting

#: What a trajectory may hold of each frame.
Property = Literal["energy", "energies", "forces", "stress", "stresses"]


def _energy_and_stress() -> list[Property]:
    return ["energy", "stress"]


class MeltSection(Section):
    """How a liquid is made; see `ase_hmlp.simulate.melt.Melting`."""

    temperature: PositiveFloat = Melting.temperature
    """K"""
    highest: PositiveFloat = Melting.highest
    """K"""
    pressure: PositiveFloat = Melting.pressure
    """GPa"""
    steps: PositiveInt = Melting.steps

    @property
    def melting(self) -> Melting:
        """What the builder wants."""
        return Melting(**self.model_dump())


class StructureSection(Section):
    """What moves: a phase that is built, or a structure from a file.

    Attributes
    ----------
    phase : a name of `ase_hmlp.simulate.structures.NAMES`; "hcp" (Phase I, random orientations),
        "liquid" (melted hcp), or "slab" (`solid` beside its melt)
    solid : of a slab, a name of a crystal or "hcp"
    file : any file ASE reads, relative to the configuration, or the folder of a run; bonds are
        those of a column ``partner`` or ``mol`` (of pairs) or of the run, else found
    index : frame of the file
    atoms : fewest atoms of what is built
    repeat : supercell of a file, which gets momenta of its own, or of a crystal instead of `atoms`
    orthogonal : whether the cell of a crystal, or of a file, is made so; where that takes several
        cells of a file, momenta are drawn anew
    pressure : GPa, that it is brought to with the model; that of the first stage if not given
    relax : "full" (positions and cell to a minimum), "volume" (centres scaled) or "none". If not
        given: "full" for crystals, "volume" for hcp, "none" for files. A liquid is made at the
        pressure; of a slab the solid is brought to it and half of it then melted at the same
        volume, so that the whole is above it until an NPT stage lets it expand
    isotope : "H2", "HD" or "D2"; masses of a file are kept if not given
    temperature : K, that initial momenta are drawn at. If not given: the start temperature of the
        first stage, twice that for a crystal at its minimum; momenta of a file are kept
    """

    phase: str | None = None
    solid: str = "hcp"
    file: str | None = None
    index: int = -1
    atoms: PositiveInt = 256
    repeat: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    orthogonal: bool = False
    pressure: float | None = None
    relax: Literal["full", "volume", "none"] | None = None
    isotope: Literal["H2", "HD", "D2"] | None = None
    temperature: PositiveFloat | None = None
    melt: MeltSection = MeltSection()

    @model_validator(mode="after")
    def _one_source(self):
        if (self.phase is None) == (self.file is None):
            raise ValueError("give either phase or file")
        if self.file is not None:
            self._check_file()
        return self

    def _check_file(self) -> None:
        """Refuse what would do nothing."""
        for key in ("atoms", "solid", "melt"):
            if key in self.model_fields_set:
                raise ValueError(f"{key} is for phases, not for a structure from a file")
        if "pressure" in self.model_fields_set and self.relax in (None, "none"):
            raise ValueError("pressure is what relax brings a structure from a file to: give both")


class DynamicsSection(Section):
    """How it moves; times in fs.

    Attributes
    ----------
    bond_steps : short steps for the bonds in a time step of everything else, which then may be
        longer; see `ase_hmlp.simulate.bond_steps`
    barostat_time : below 1000 Martyna-Tobias-Klein's full-cell barostat may pump energy into the
        breathing mode of a crystal's cell
    """

    timestep: PositiveFloat = 0.5
    bond_steps: PositiveInt = 1
    thermostat: Thermostat = "nose-hoover"
    thermostat_time: PositiveFloat = 50.0
    barostat_time: PositiveFloat = 1000.0

    @property
    def times(self) -> Times:
        """For the integrators."""
        return Times(self.timestep, self.thermostat_time, self.barostat_time, self.bond_steps)


class StageSection(Section):
    """A part of the run.

    Attributes
    ----------
    ensemble : "nve", "nvt" or "npt"
    steps : or `time`
    time : ps
    temperature : K, or [from, to], a linear ramp
    pressure : GPa, or [from, to]
    cell : "full" or "iso", what moves in NPT. If not given: "iso" where the structure is a liquid
        or a slab, which would let a full cell lose its shape, "full" for crystals and files
    thermostat : instead of the one of [dynamics]
    """

    ensemble: Ensemble
    steps: PositiveInt | None = None
    time: PositiveFloat | None = None
    temperature: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = None
    pressure: float | tuple[float, float] | None = None
    cell: Cell | None = None
    thermostat: Thermostat | None = None

    @model_validator(mode="after")
    def _complete(self):
        if (self.steps is None) == (self.time is None):
            raise ValueError("give either steps or time")
        for name, needed in (
            ("temperature", self.ensemble != "nve"),
            ("pressure", self.ensemble == "npt"),
        ):
            given = getattr(self, name) is not None
            if needed and not given:
                raise ValueError(f"{self.ensemble} needs a {name}")
            if given and not needed:
                raise ValueError(f"{self.ensemble} has no {name}")
        if self.ensemble == "npt" and self.thermostat == "bussi":
            raise ValueError("bussi is a thermostat for nvt")
        return self

    def moving_cell(self, structure: StructureSection | None) -> Cell:
        """What moves in NPT: what is given, or what suits the structure."""
        flows = structure is not None and structure.phase in ("liquid", "slab")
        return self.cell or ("iso" if flows and self.ensemble == "npt" else "full")

    def stage(self, dynamics: DynamicsSection, structure: StructureSection | None = None) -> Stage:
        """The stage as `Dynamics` wants it."""
        thermostat = self.thermostat or dynamics.thermostat
        method = Method(self.ensemble, thermostat, self.moving_cell(structure))
        steps = self.steps or max(1, round(1000.0 * (self.time or 0.0) / dynamics.timestep))
        (t0, t1), (p0, p1) = _ends(self.temperature), _ends(self.pressure)
        return Stage(method, steps, Target(t0, p0), Target(t1, p1))


def _ends(value) -> tuple[float, float]:
    if value is None:
        return float("nan"), float("nan")
    first, last = value if isinstance(value, tuple) else (value, value)
    return float(first), float(last)


class OutputSection(Section):
    """What is written, and how often, in steps.

    Attributes
    ----------
    sample_interval : between rows of the log
    frame_interval : between frames of the trajectory
    properties : results of the calculator in each frame, beside positions and momenta
    checkpoint_interval : a killed run goes on from the last of these
    deviation_interval : between rows with predicted deviations; 0 for none
    deviation_threshold : mean predicted deviation (meV/atom) above which a row is a warning; single
        atoms above the model's own threshold are warned of in any case
    """

    sample_interval: PositiveInt = 10
    frame_interval: PositiveInt = 50
    properties: list[Property] = Field(default_factory=_energy_and_stress)
    checkpoint_interval: PositiveInt = 1000
    deviation_interval: NonNegativeInt = 100
    deviation_threshold: PositiveFloat | None = None

    @model_validator(mode="after")
    def _on_the_grid(self):
        if self.deviation_interval % self.sample_interval:
            raise ValueError("deviation_interval must be a multiple of sample_interval")
        return self


class LammpsSection(Section):
    """How engine lammps is started; results are the same to rounding.

    Attributes
    ----------
    ranks : MPI processes
    command : words that start LAMMPS on all its processes, such as ``["srun", "lmp"]``; ``lmp`` of
        this environment, by its ``mpirun`` if there are several ranks, if not given
    """

    ranks: PositiveInt = 1
    command: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_number(self):
        if self.command is not None and self.ranks != 1:
            raise ValueError("give either ranks or command, which says how many there are")
        return self


class RunConfig(Section):
    """A whole run.

    Attributes
    ----------
    engine : "ase" or "lammps"
    model : a shipped name, or a model file relative to the configuration
    output : folder, relative to the configuration; named after it if not given
    threads : of the calculator; OMP_NUM_THREADS or every core if not given. Results do not depend
        on it
    seed : of orientations, momenta and thermostats
    lammps : how engine lammps is started
    """

    engine: Literal["ase", "lammps"] = "ase"
    model: str = "h2-pbe"
    output: str | None = None
    threads: PositiveInt | None = None
    seed: NonNegativeInt = 0
    structure: StructureSection | None = None
    dynamics: DynamicsSection = DynamicsSection()
    stage: list[StageSection] = Field(min_length=1)
    write: OutputSection = OutputSection()
    lammps: LammpsSection = LammpsSection()

    @model_validator(mode="after")
    def _fits(self):
        bussi = self.dynamics.thermostat == "bussi"
        if bussi and any(s.ensemble == "npt" and s.thermostat is None for s in self.stage):
            raise ValueError("bussi is a thermostat for nvt; name another for the npt stages")
        if self.engine == "lammps" and self.dynamics.bond_steps > 1:
            raise ValueError("short steps for bonds (dynamics.bond_steps) need engine ase")
        return self

    @property
    def stages(self) -> list[Stage]:
        """The stages as `Dynamics` wants them."""
        return [section.stage(self.dynamics, self.structure) for section in self.stage]

    @property
    def record(self) -> dict[str, Any]:
        """What decides the results, as plain values: two runs with the same are the same."""
        record = self.model_dump(mode="json", exclude={"output", "threads", "lammps"})
        for plain, section in zip(record["stage"], self.stage, strict=True):
            plain["cell"] = section.moving_cell(self.structure)
        return record
