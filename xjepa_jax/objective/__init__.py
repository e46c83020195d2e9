"""The objective: from embeddings to a loss. One file per term, weighted by the config."""
