"""`hmlp ablate`: what each part of the potential's form is worth.

`variants` says which parts are left out, `run` has them fitted and timed by the machinery of the
search, `report` writes table, CSV and bars.
"""
