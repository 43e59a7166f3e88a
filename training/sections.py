"""TOML configurations, as `ase_hmlp.sections` has them."""

from ase_hmlp.sections import Section, read_toml, validate

__all__ = ["Section", "read_toml", "validate"]
