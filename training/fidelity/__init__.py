"""How faithful a model is to DFT in what is derived from energies: `hmlp compare`.

Bond and frequency of the molecule, energy curves of two molecules, static pressure, enthalpies and
phonons of crystals, against Quantum ESPRESSO's, which are in the package's own data.
"""
