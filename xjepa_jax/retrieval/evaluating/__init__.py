"""What `evaluate` does: sources of many kinds, one table, sizes against quality."""
