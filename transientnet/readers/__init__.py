"""Readers: any source of candidates in, `Triplet` objects out."""
