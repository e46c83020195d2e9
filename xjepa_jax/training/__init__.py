"""Loss -> state: the step, the optimizer, checkpoints, and what watches over them."""
