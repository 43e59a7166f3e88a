"""The rows of the table: what each leaves out of a training configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ase_hmlp._core.levels import N_FINGERPRINTS
from ase_hmlp.errors import ConfigError
from ase_hmlp.training.config import TrainingConfig
from ase_hmlp.training.fit import LEVELS
from ase_hmlp.training.search.settings import Changes

#: Families of environment fingerprints that see where neighbours are and not how they point.
RADIAL = ("density", "shell")

#: The quadrupole among the environment's sums of invariants.
QUADRUPOLE = "S224"

#: What the rows are and what they are not.
NOTES = (
    "Every row is the configuration with the changes below and nothing else: bond (in all rows), "
    "repulsive baseline (part of the pair level), cutoffs, widths, priors and weights stay, and "
    "none is tuned again for fewer levels. Each family of frames is predicted by a fit to all "
    "others; families that the configuration never holds out are not judged.",
    f"Pair acts between atoms, so it sees how molecules point. Environment: {N_FINGERPRINTS} "
    "fingerprints of a molecule's neighbours. Radial ones are the densities and shells, sums over "
    "the centres of neighbours of functions of their distance; all others see directions; overlaps "
    "are the forms with the inverse of the molecules' overlap matrix. Where the kernel is on "
    "radial ones, so are the level's linear terms, but for the row of all levels, and there are "
    "no overlaps.",
    "Published: Zong, Wiebe and Ackland (2020). Its radial fingerprints are Gaussians (equation 3) "
    "and damped sines (equation 4) of distances of atoms: the pair level without stretch terms, "
    "with the configuration's widths, ended by a cutoff in the distance of centres instead of "
    "atoms. Its orientation fingerprints are listed in a supplement that we do not have; fp_EQQ "
    "(equations 6 and 7) stands for them alone, and in the row with our orientation all functions "
    "of the orientation level instead. Bond and baseline are ours; the published bond is harmonic.",
    "Published, kernel: the published potential has one kernel ridge regression on each atom's "
    "radial fingerprints and, to what that leaves, one on orientation. Here one Gaussian kernel of "
    "a molecule stands for both, beside the linear levels: on sums over centres (densities and "
    "shells) for those over atoms, and on S224, the angular form of fp_EQQ with a Gaussian of the "
    "distance for its R^-5. It does not see the bond length.",
    "Time: an evaluation of energy, forces and virial on one thread, measured in turns with that "
    "of the configuration and divided by it. All radial functions of a level are in one table, so "
    "that fewer of them are not faster.",
)


@dataclass(frozen=True)
class Variant:
    """A row.

    Attributes
    ----------
    name : str
    changes : dict
        In what it differs from the configuration.
    """

    name: str
    changes: Changes


def variants(config: TrainingConfig) -> list[Variant]:
    """The rows for a configuration, which is one of them.

    Raises
    ------
    ConfigError
        If it has not got all that is to be left out.
    """
    environment = config.environment
    if config.fit.levels != list(LEVELS) or not environment.representatives:
        raise ConfigError(
            "An ablation needs a configuration with all levels and with representatives."
        )
    weights = {str(family): weight for family, weight in environment.inputs.items()}
    inputs = {f: w for f, w in weights.items() if f in RADIAL} or {"shell": 1.0}
    no_overlaps = {"environment.overlap": None}
    radial = {
        "environment.inputs": inputs,
        "environment.linear": list(RADIAL),
        **no_overlaps,
    }
    published = {
        "pair.stretch_terms": False,
        "fit.levels": ["pair", "orientation"],
    }
    alone = {
        "orientation.gaussians": [],
        "orientation.damped_sines": [],
        "orientation.invariants": [QUADRUPOLE],
    }
    kernel = {
        "fit.levels": list(LEVELS),
        "environment.inputs": inputs | {QUADRUPOLE: weights.get("S", 0.15)},
        "environment.linear": [*RADIAL, QUADRUPOLE],
        "environment.stretch_width": 0.0,
        **no_overlaps,
    }
    return [
        Variant("bond alone", {"fit.levels": []}),
        Variant("pair", {"fit.levels": ["pair"]}),
        Variant("pair, orientation", {"fit.levels": ["pair", "orientation"]}),
        Variant("all levels, linear", {"environment.representatives": 0}),
        Variant(
            "all levels without overlaps, linear",
            {"environment.representatives": 0, **no_overlaps},
        ),
        Variant("all levels without overlaps", no_overlaps),
        Variant("pair; kernel on radial", {"fit.levels": ["pair", "environment"], **radial}),
        Variant("pair, orientation; kernel on radial", radial),
        Variant("all levels; kernel on radial", {"environment.inputs": inputs, **no_overlaps}),
        Variant("all levels, as configured", {}),
        Variant("published, linear", {**published, **alone}),
        Variant("published, our orientation, linear", published),
        Variant("published, kernel", {**published, **alone, **kernel}),
    ]
