"""Embeddings to loss: one file a term, one signature for all, weighted by the config."""
