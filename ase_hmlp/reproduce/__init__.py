"""`hmlp reproduce`: the tables and figures of Zong, Wiebe and Ackland (2020), beside our own.

A reproduction is a folder. Every phase at a pressure and temperature is one run in it (see
`ase_hmlp.reproduce.points`), which all tables and figures that want it share. Nothing that is
there is computed again, and reports are made from whatever points are finished.
"""
