"""From files to batches: archives, pairs on disk, and batches placed on the mesh."""
