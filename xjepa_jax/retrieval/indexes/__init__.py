"""Search indexes over a directory of embeddings: four back ends behind one interface."""
