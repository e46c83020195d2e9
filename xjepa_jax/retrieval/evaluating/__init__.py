"""Parts of the `evaluate` command: sources of many kinds, one table, sizes against quality."""
