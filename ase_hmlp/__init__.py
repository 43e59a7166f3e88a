"""A hierarchical machine-learned potential of molecular hydrogen for ASE."""

from importlib.metadata import version as _version

__all__ = ["HMLP", "__version__"]

__version__ = _version("ase_hmlp")


def __getattr__(name):
    # ASE loads only when the calculator is asked for, so that the command line answers at once.
    if name == "HMLP":
        from ase_hmlp.calculator import HMLP

        return HMLP
    raise AttributeError(f"module 'ase_hmlp' has no attribute {name!r}")
