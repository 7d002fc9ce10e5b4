"""Contract and triplets in, normalised tensor and quality flags out: the one code path of every number."""
