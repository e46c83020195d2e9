"""Files to batches: archives, pairs on disk, and the way into the mesh."""
