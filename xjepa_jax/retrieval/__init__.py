"""Retrieval with descriptors: rankings, metrics, and comparison with chance and baselines."""
