"""The configuration of an active-learning loop: a TOML file, every key checked."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ase_hmlp.parallel import WorkersSection
from ase_hmlp.simulate.structures import NAMES
from ase_hmlp.training.frames import ALL
from ase_hmlp.training.label import LabelSection
from ase_hmlp.training.sections import Section

#: Phases that are made anew at every pressure and in every round, and are no crystals by name.
HCP, LIQUID = "hcp", "liquid"


class ExploreSection(Section):
    """Where the potential is sent.

    Every starting structure is relaxed, or made, at every pressure; then dynamics at constant
    pressure takes each on a tour of the whole grid of pressures and temperatures, see
    `ase_hmlp.training.learn.explore`.

    Attributes
    ----------
    phases : crystal structures, by name as in `ase_hmlp.simulate.build.phase`; "hcp", Phase I with
        other random orientations in every round, scaled to the pressure and not relaxed; "liquid",
        melted hcp, as hot as the hottest of `temperatures`; it takes 24 atoms or more to melt
    files : more starting structures, in files ASE reads; relative to the configuration
    random : random packings of molecules, others in every round
    atoms : fewest atoms in a cell
    relaxation_steps : most steps of a relaxation; dynamics starts from whatever it reached
    pressures : GPa
    temperatures : K
    leave_out : points of the grid, [GPa, K] each, that tours pass by: where what is simulated is no
        longer what the potential is for
    ramp : ps on the way to a point of the grid, pressure and temperature changing
    hold : ps at the point
    snapshots : candidates for labelling from each point, evenly spaced in time
    timestep : fs
    run : how many runs at a time, and where
    """

    phases: list[str] = Field(default_factory=lambda: list(NAMES))
    files: list[str] = Field(default_factory=list)
    random: int = Field(2, ge=0)
    atoms: int = Field(24, ge=2)
    relaxation_steps: PositiveInt = 300
    pressures: list[PositiveFloat] = Field(min_length=1)
    temperatures: list[PositiveFloat] = Field(min_length=1)
    leave_out: list[tuple[float, float]] = Field(default_factory=list)
    ramp: PositiveFloat = 0.5
    hold: PositiveFloat = 1.0
    snapshots: PositiveInt = 10
    timestep: PositiveFloat = 0.5
    run: WorkersSection = WorkersSection()

    @field_validator("phases")
    @classmethod
    def _known(cls, phases: list[str]) -> list[str]:
        known = (*NAMES, HCP, LIQUID)
        for name in phases:
            if name not in known:
                raise ValueError(f"there is no phase {name!r}, only {', '.join(known)}")
        return phases

    @field_validator("phases", "files", "pressures", "temperatures", "leave_out")
    @classmethod
    def _once(cls, values: list) -> list:
        if len(set(values)) < len(values):
            raise ValueError("something is named twice")
        return values

    @model_validator(mode="after")
    def _something(self) -> ExploreSection:
        if not (self.phases or self.files or self.random):
            raise ValueError("there must be phases, files or random packings to start from")
        for pressure, temperature in self.leave_out:
            if pressure not in self.pressures or temperature not in self.temperatures:
                raise ValueError(
                    f"leave_out = [{pressure:g}, {temperature:g}] is no point of the grid"
                )
        if len(self.leave_out) == len(self.pressures) * len(self.temperatures):
            raise ValueError("leave_out leaves no point of the grid")
        if self.hold * 1000.0 < self.timestep * self.snapshots:
            raise ValueError(f"{self.hold:g} ps are too short for {self.snapshots} snapshots")
        return self


class SelectSection(Section):
    """Which of the structures found are labelled; see `ase_hmlp.training.learn.select`.

    Attributes
    ----------
    frames : most to label in a round
    uncertainty : meV; a frame is worth labelling if the predicted standard deviation of an
        atom's energy is larger. Unless given, it is found from `quantile`
    quantile : of the largest deviation in each training frame under the first potential: as
        uncertain as that was on its own data
    separation : a frame is known if each atom's surroundings are nearer to some that are known
        than this many times the typical distance between training frames
    """

    frames: PositiveInt = 40
    uncertainty: PositiveFloat | None = None
    quantile: float = Field(default=0.99, gt=0, le=1)
    separation: float = Field(default=1.0, gt=0)


class TrainSection(Section):
    """How the potential is fitted.

    Attributes
    ----------
    config : a training configuration as `hmlp train` takes it, relative to this one
    settings : tables of a training configuration that replace those of `config`, key by key
        (values that are tables, such as ``environment.inputs``, as a whole), or a whole one; paths
        are relative to this configuration
    family : the family the new frames belong to
    """

    config: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    family: str = Field("learned", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")

    @field_validator("family")
    @classmethod
    def _not_all(cls, name: str) -> str:
        if name == ALL:
            raise ValueError(f"{ALL!r} is what tables call all families together")
        return name

    @model_validator(mode="after")
    def _something(self) -> TrainSection:
        if self.config is None and not self.settings:
            raise ValueError("give a training configuration: config, settings or both")
        return self


class StopSection(Section):
    """When the loop ends.

    Attributes
    ----------
    frames : a round that finds fewer frames worth labelling is the last, and labels none
    rounds : the most there may be
    """

    frames: PositiveInt = 5
    rounds: PositiveInt = 10


class LearnConfig(Section):
    """A whole active-learning loop.

    Attributes
    ----------
    seed : of velocities and random packings
    model : the potential to begin with, a shipped name or a file relative to the configuration;
        one fitted to the training data unless given
    label : the tables of `hmlp label` but for input and output
    """

    seed: int = Field(0, ge=0)
    model: str | None = None
    explore: ExploreSection
    select: SelectSection = SelectSection()
    label: LabelSection
    train: TrainSection
    stop: StopSection = StopSection()

    @model_validator(mode="after")
    def _attainable(self) -> LearnConfig:
        if self.stop.frames > self.select.frames:
            raise ValueError(
                f"stop.frames = {self.stop.frames} is more than select.frames = "
                f"{self.select.frames} ever lets a round find"
            )
        return self
