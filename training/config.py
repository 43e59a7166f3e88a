"""The training configuration: a TOML file, every key checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ase_hmlp.fingerprints import (
    N_DENSITIES,
    N_SHELLS,
    STRETCH_NAMES,
    OverlapBasis,
    RadialFunction,
    damped_sines,
    gaussians,
    quadrupole,
    shells,
)
from ase_hmlp.training.fit import LEVELS, HierarchicalPotential, KernelSpec, LevelName, LevelSpec
from ase_hmlp.training.limits import Limits
from ase_hmlp.training.sections import Section, read_toml
from ase_hmlp.training.weights import Weights

#: Longest range (Å) of radial functions, and of overlaps, in a model file.
MOST_CUTOFF, MOST_REACH = 50.0, 20.0

#: What standard errors, priors and weights may be. The fit squares their ratios: far beyond, those
#: have no digits left.
Scale = Annotated[float, Field(ge=1e-12, le=1e12)]

#: Families of environment fingerprints, by how their names begin.
Family = Literal[
    "density",
    "axial",
    "S",
    "S022",
    "S220",
    "S222",
    "S224",
    "S044",
    "vector",
    "tensor",
    "vector-axis",
    "tensor-axis",
    "overlap",
    "overlap2",
    "shell",
    "stretched",
    "axial-bb",
    "axial-cRb",
]


class SourceSection(Section):
    """Labels of one origin: one code, one set of settings, one energy zero.

    Attributes
    ----------
    files : paths, relative to the configuration file
    name : of the source, in place of what the frames themselves say (``info["source_set"]``);
        where neither says, all but the first are called like their first file
    zero : "own" has the fit find its energy zero; "shared" takes that of the first frame's source
    weight : what the squared residuals are multiplied by
    families : the only ones that are read; all if there are none
    limits : frames outside are left out
    """

    files: list[str] = Field(min_length=1)
    name: str = ""
    zero: Literal["own", "shared"] = "own"
    weight: Scale = 1.0
    families: list[str] = Field(default_factory=list)
    limits: Limits = Limits()


class DataSection(Section):
    """Where the labelled frames are.

    Attributes
    ----------
    files : paths, relative to the configuration file
    source : further sources; see `SourceSection`
    always : families that are never held out: they pin down limits no thermal frame reaches
    min_bond, max_bond : bond lengths (Å) outside which a frame is left out
    """

    files: list[str] = Field(default_factory=list)
    source: list[SourceSection] = Field(default_factory=list)
    always: list[str] = Field(default_factory=list)
    min_bond: PositiveFloat = 0.5
    max_bond: PositiveFloat = 1.15

    @model_validator(mode="after")
    def _has_files(self):
        if not self.sources:
            raise ValueError("there must be files, or a source")
        return self

    @property
    def sources(self) -> list[SourceSection]:
        """`files`, if any, and then `source`; the first one's energy zero is the model's."""
        return ([SourceSection(files=self.files)] if self.files else []) + self.source


class SplitSection(Section):
    """Which families test the fit.

    Attributes
    ----------
    scheme : "leave-one-family-out" predicts each family by a fit to all others, and ships a fit
        to everything; "families" holds `test` out of the shipped fit
    test : families, for "families"
    fitted : families that no fit leaves out, as those of `DataSection.always`; unlike them they
        count for the volumes, pressures and bonds the model is good for. What active learning
        chose because the rest tells nothing of it does not measure errors, or calibrate deviations
    """

    scheme: Literal["leave-one-family-out", "families"] = "leave-one-family-out"
    test: list[str] = Field(default_factory=list)
    fitted: list[str] = Field(default_factory=list)


class WeightSection(Section):
    """Standard errors of the labels; see `Weights`."""

    energy: Scale = 2.0
    """meV/atom"""
    force: Scale = 40.0
    """meV/Å"""
    stress: Scale = 0.4
    """GPa"""
    relative: float = Field(default=0.1, ge=0, le=1e12)
    torque: Scale | None = None
    """meV/Å; as force if not given"""


class BondSection(Section):
    """Level 1; see `ase_hmlp.training.bond.fit_bond`."""

    form: Literal[
        "auto", "harmonic", "cubic", "quartic", "quintic", "sextic", "octic", "nonic", "morse"
    ] = "auto"
    groups: list[str] = Field(default_factory=list)


class RadialSection(Section):
    """Radial functions and their range.

    Attributes
    ----------
    gaussians : widths eta, Å
    damped_sines : pairs (k in 1/Å, eta in Å)
    cutoff : between the centres of molecules, Å
    inner, outer : what the functions see is frozen between these distances, Å; they ascend to
        `cutoff`, and that to `MOST_CUTOFF`
    linear_prior : eV, see `LevelSpec`
    """

    gaussians: list[PositiveFloat] = Field(default_factory=list)
    damped_sines: list[tuple[float, PositiveFloat]] = Field(default_factory=list)
    cutoff: PositiveFloat
    inner: PositiveFloat
    outer: PositiveFloat
    linear_prior: Scale = 1.0

    @model_validator(mode="after")
    def _ascends(self):
        # What a model file must fulfil, said before the fit and not after it.
        if not self.inner <= self.outer < self.cutoff <= MOST_CUTOFF:
            raise ValueError(
                f"inner = {self.inner:g}, outer = {self.outer:g} and cutoff = {self.cutoff:g} are "
                f"not in ascending order up to {MOST_CUTOFF:g} Å"
            )
        return self

    @property
    def functions(self) -> tuple[RadialFunction, ...]:
        """The radial functions."""
        functions = gaussians(self.gaussians)
        if self.damped_sines:
            functions += damped_sines(*zip(*self.damped_sines, strict=True))
        return functions

    @property
    def _range(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("cutoff", "inner", "outer", "linear_prior")}


class PairSection(RadialSection):
    """Level 2; see `LevelSpec`.

    Attributes
    ----------
    baseline_contact : Å
    baseline_groups : families the repulsive baseline is fitted to; empty for all
    stretch_terms : whether the coefficients depend on the stretches of the two bonds
    """

    baseline_contact: float = Field(0.0, ge=0)
    baseline_groups: list[str] = Field(default_factory=list)
    stretch_terms: bool = True

    def spec(self) -> LevelSpec:
        """The level as the fit wants it."""
        return LevelSpec(
            self.functions,
            **self._range,
            baseline_contact=self.baseline_contact,
            terms=None if self.stretch_terms else STRETCH_NAMES[:1],
        )


class OrientationSection(RadialSection):
    """Level 3; the quadrupole function, hence ``fp_EQQ``, is always among its functions.

    Attributes
    ----------
    invariants : what the radial functions are multiplied by, S224 in ``fp_EQQ``; all of
        `ase_hmlp.fingerprints.ORIENTATION_NAMES` unless given
    """

    invariants: list[Literal["S000", "S202+S022", "S220", "S222", "S224", "S404+S044"]] | None = (
        Field(default=None, min_length=1)
    )

    def spec(self) -> LevelSpec:
        """The level as the fit wants it."""
        terms = None if self.invariants is None else tuple(self.invariants)
        return LevelSpec(self.functions + quadrupole(), **self._range, terms=terms)


class OverlapSection(Section):
    """How the orbitals of molecules overlap; see `ase_hmlp.fingerprints.OverlapBasis`.

    Attributes
    ----------
    support : Å
    widths : three, Å
    reach, inner : Å
    ridge : of the diagonal of the overlap matrix
    freeze : distances between molecules (Å) below which nothing changes any more
    """

    support: PositiveFloat
    widths: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    reach: PositiveFloat
    inner: PositiveFloat
    ridge: PositiveFloat = 0.03
    freeze: tuple[PositiveFloat, PositiveFloat] = (0.6, 0.8)

    @model_validator(mode="after")
    def _falls(self):
        if not self.inner < self.reach:
            raise ValueError("inner must be shorter than reach")
        if not self.reach <= MOST_REACH:
            raise ValueError(f"reach = {self.reach:g} is more than {MOST_REACH:g} Å")
        if not self.freeze[0] <= self.freeze[1] < self.reach:
            raise ValueError("freeze must be two distances that ascend, within reach")
        return self

    def basis(self) -> OverlapBasis:
        """What the kernel is told."""
        return OverlapBasis(
            self.support, self.widths, self.reach, self.inner, self.ridge, self.freeze
        )


class EnvironmentSection(RadialSection):
    """Level 4; its functions are four beside `aligned` and `shells`; see `KernelSpec`.

    Attributes
    ----------
    aligned : width (Å) of the Gaussian that weighs the sums over the neighbours' axes
    shells : centres (Å) of the eight Gaussians that count neighbours by distance
    shell_width : of all of them, Å
    inputs : families of fingerprints the Gaussian kernel sees, and what each is multiplied by once
        it is scaled to unit spread: how important it is
    linear : families of fingerprints the linear kernel sees; all of them unless given
    overlap : how the orbitals of molecules overlap; without it those fingerprints are zero
    """

    aligned: PositiveFloat
    shells: list[PositiveFloat] = Field(min_length=N_SHELLS, max_length=N_SHELLS)
    shell_width: PositiveFloat
    representatives: int = Field(500, ge=0)
    length_scale: Scale = 1.0
    whitening: float = Field(0.5, ge=0, le=1)
    tolerance: float = Field(1e-3, gt=0, lt=1)
    stretch_width: float = Field(0.1, ge=0, le=1e12)
    prior: Scale = 1.0
    overlap: OverlapSection | None = None
    inputs: dict[Family, Scale] = Field(
        default={"shell": 1.0, "axial": 0.3, "S": 0.15, "stretched": 0.15}, min_length=1
    )
    linear: list[Family] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _has_four(self):
        if len(self.functions) != N_DENSITIES:
            raise ValueError(f"there must be {N_DENSITIES} radial functions")
        return self

    def spec(self) -> KernelSpec:
        """The level as the fit wants it."""
        names = "length_scale whitening tolerance stretch_width prior".split()
        numbers: dict[str, Any] = {name: getattr(self, name) for name in names}
        return KernelSpec(
            self.functions + gaussians([self.aligned]) + shells(self.shells, self.shell_width),
            **self._range,
            n_representatives=self.representatives,
            inputs={str(family): weight for family, weight in self.inputs.items()},
            linear=None if self.linear is None else tuple(self.linear),
            overlap=self.overlap.basis() if self.overlap else None,
            **numbers,
        )


class FitSection(Section):
    """How the coefficients are found; see `HierarchicalPotential`."""

    levels: list[LevelName] = Field(default=list(LEVELS))
    """Those there are beside the bond; none without the pair level."""
    joint: bool = True
    variance: bool = True
    random_state: int = Field(default=0, ge=0)
    """Draws the frames of the learning curve; nothing else is random."""
    learning_curve: PositiveInt = 4
    """Number of points of the learning curve, each half the frames of the next; 1 for none."""

    @field_validator("levels")
    @classmethod
    def _pair_first(cls, levels: list[LevelName]) -> list[LevelName]:
        if levels and "pair" not in levels:
            raise ValueError("the other levels need the pair level")
        return [level for level in LEVELS if level in levels]


class TrainingConfig(Section):
    """A whole training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    data: DataSection
    split: SplitSection = SplitSection()
    weights: WeightSection = WeightSection()
    bond: BondSection = BondSection()
    pair: PairSection
    orientation: OrientationSection
    environment: EnvironmentSection
    fit: FitSection = FitSection()

    @property
    def never_held_out(self) -> list[str]:
        """Families that every fit uses."""
        return [*self.data.always, *self.split.fitted]

    def estimator(self) -> HierarchicalPotential:
        """The unfitted estimator this configuration describes."""
        return HierarchicalPotential(
            **{name: getattr(self, name).spec() for name in self.fit.levels},
            bond=self.bond.form,
            bond_groups=tuple(self.bond.groups),
            baseline_groups=tuple(self.pair.baseline_groups),
            weights=Weights(
                self.weights.energy * 1e-3,
                self.weights.force * 1e-3,
                self.weights.stress,
                self.weights.relative,
                self.weights.torque and self.weights.torque * 1e-3,
            ),
            joint=self.fit.joint,
            variance=self.fit.variance,
        )


def read_config(path, changes: Sequence[str] = ()) -> TrainingConfig:
    """Read and check a training configuration, with `changes` as `read_toml` takes them.

    Raises
    ------
    ConfigError
        Naming the file and the key.
    """
    return read_toml(path, TrainingConfig, changes)
