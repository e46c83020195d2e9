"""From a batch to embeddings: which tokens are seen, encoders, predictor, heads."""
