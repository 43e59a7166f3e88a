"""The models that come with the package; see `ase_hmlp.model_io.load_model`."""
