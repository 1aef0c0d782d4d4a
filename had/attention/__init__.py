"""Hamming attention: the oracle, its building blocks, and the adapters to model libraries."""
