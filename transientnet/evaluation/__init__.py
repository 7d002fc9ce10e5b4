"""How good a model is, and whether tonight is like what it knows: metrics, statistics, calibration, drift."""
