"""Any source of candidates in, `Triplet` objects out: find, identify, decode, assemble."""
