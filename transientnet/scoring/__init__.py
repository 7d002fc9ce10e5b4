"""Scoring at scale: `classify`, the run behind ``transientnet score``, workers, clusters, streams."""
