"""All of ``hmlp analyse``: importing a module of commands registers them."""

from ase_hmlp.analysis import dynamics_commands, structure_commands  # noqa: F401
from ase_hmlp.analysis.command_group import analyse

__all__ = ["analyse"]
