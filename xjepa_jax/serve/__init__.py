"""The search page: an archive on a map, its tiles as pictures, and queries by click or upload."""
