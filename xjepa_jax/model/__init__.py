"""The model: from a batch of images to embeddings (masks, encoders, predictor and heads)."""
