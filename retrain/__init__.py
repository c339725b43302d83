"""Makes models: data checks, preparation, training, ensembles, calibration, export, and the gate."""
