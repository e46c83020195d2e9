"""Indexes: a directory of embeddings made searchable, by four back ends behind one interface."""
