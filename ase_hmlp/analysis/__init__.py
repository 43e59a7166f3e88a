"""What a trajectory says: structure, thermodynamics and dynamics, with error bars.

A `~ase_hmlp.analysis.trajectory.Trajectory` streams frames to any number of analyses in one pass
(`ase_hmlp.analysis.streaming.analyse`); each returns a `~ase_hmlp.analysis.result.Result`. Nothing
is imported here, so that the command line answers at once.
"""
