"""Stability: dynamics at every point of a grid, and what a model did there that it must not.

The runs are those of `ase_hmlp.simulate.sweep`, looked at in every step (`watch`); what their
folders say is judged by the limits of the model itself (`verdict`), reported (`report`), and the
structures that tripped are written down for labelling (`frames`). `grid` strings it together.
"""
