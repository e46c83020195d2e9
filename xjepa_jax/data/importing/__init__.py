"""Code shared by importers: options, sensors fitted to their files, splits, reports, one import."""
