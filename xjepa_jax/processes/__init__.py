"""Many processes as one run: joining, waiting, stopping together, noticing that one is lost."""
