"""Planning a run for machines that are not at hand: memory, communication, and time per step."""
