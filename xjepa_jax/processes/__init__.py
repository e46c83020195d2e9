"""Several processes as one run: joining, barriers, stopping together, detecting lost processes."""
