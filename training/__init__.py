"""Training: labelled frames in, a model file and its card out.

Installed as ``ase_hmlp.training``; imports ``ase_hmlp``, never the reverse.
"""
