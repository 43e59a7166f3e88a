"""Named errors: what cannot be computed, read or trained says which atom, file or key, and why."""


class HMLPError(Exception):
    """Base of every error this package raises on purpose."""


class StructureError(HMLPError, ValueError):
    """A structure the potential has no answer for."""


class UnsupportedElementError(StructureError):
    """An element other than hydrogen."""


class NonFinitePositionsError(StructureError):
    """NaN or infinite positions or cell."""


class CellError(StructureError):
    """A periodic cell without volume."""


class BondingError(StructureError):
    """Atoms that do not fall into pairs."""


class OddAtomError(BondingError):
    """An odd number of atoms."""


class NoPartnerError(BondingError):
    """An atom without another within bonding distance."""


class TwoPartnersError(BondingError):
    """An atom with two equally near partners."""


class PartnerMismatchError(BondingError):
    """An atom whose nearest neighbour is bonded to, or prefers, another."""


class DomainError(StructureError):
    """A structure so far outside the training data that its energy is meaningless."""


class BondStretchError(DomainError):
    """A bond compressed or stretched past the domain."""


class ContactError(DomainError):
    """Two atoms of different molecules on top of each other."""


class ModelFileError(HMLPError):
    """A model file that cannot be used."""


class ModelNotFoundError(ModelFileError, FileNotFoundError):
    """No such model."""


class TruncatedModelError(ModelFileError):
    """A model file that ends early or is damaged."""


class ForeignModelError(ModelFileError):
    """A file that is not a model of this package."""


class ModelVersionError(ModelFileError):
    """A model written under another schema version."""


class UnsafeModelError(ModelFileError):
    """A file whose unpickling would need code; none was run."""


class ConfigError(HMLPError, ValueError):
    """A configuration with an unknown key or an impossible value."""


class DataError(HMLPError, ValueError):
    """Training or evaluation data that cannot be read."""


class LabelError(DataError):
    """A frame without energy or forces, or with labels of the wrong shape."""


class TrajectoryError(HMLPError, ValueError):
    """A trajectory that cannot be analysed."""


class FrameMismatchError(TrajectoryError):
    """Frames that are not of one system."""


class BrokenBondError(TrajectoryError):
    """A bond of the first frame that does not hold in a later one."""


class MissingVelocitiesError(TrajectoryError):
    """A trajectory without velocities where an analysis needs them."""


class MissingResultsError(TrajectoryError):
    """Frames without the energies or stresses an analysis needs."""


class TooFewFramesError(TrajectoryError):
    """Fewer frames or samples than an analysis needs."""


class TimestepError(TrajectoryError):
    """A time between frames that is unknown, or contradicts the trajectory."""


class ReferenceMismatchError(TrajectoryError):
    """A reference cell that a trajectory is no supercell of."""


class AnalysisError(HMLPError, ValueError):
    """An analysis that has no answer for these settings."""


class NotConvergedError(HMLPError, RuntimeError):
    """A relaxation that did not reach its tolerances."""


class LabellingError(HMLPError, RuntimeError):
    """A labelling run in which nothing works."""


class LearningError(HMLPError, RuntimeError):
    """An active-learning loop that cannot go on."""


class RunError(HMLPError, RuntimeError):
    """A simulation that cannot start, go on or be continued."""


class OutputExistsError(HMLPError, FileExistsError):
    """An output folder that already holds something."""


class PluginError(HMLPError, RuntimeError):
    """A LAMMPS plugin that cannot be built here."""


class DomainWarning(UserWarning):
    """A structure outside the model's training data; its energy is an extrapolation.

    Attributes
    ----------
    kind : str
        What is outside, as a field of `ase_hmlp.model_io.Domain`; or ``uncertainty``.
    """

    def __init__(self, message: str = "", kind: str = ""):
        super().__init__(message)
        self.kind = kind
