"""From a loss to a trained state: the step, the optimizer, checkpoints and their safeguards."""
