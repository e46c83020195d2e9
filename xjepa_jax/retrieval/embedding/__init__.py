"""Turns archives into GeoParquet directories of descriptors: list, read, compute, write."""
