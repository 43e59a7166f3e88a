"""Pair style hmlp for LAMMPS: its sources, its plugin, and what LAMMPS reads."""
