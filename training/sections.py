"""TOML configurations, as `ase_hmlp.sections` has them."""

from ase_hmlp.sections import Section, merged, read_toml, section_of, validate

__all__ = ["Section", "merged", "read_toml", "section_of", "validate"]
