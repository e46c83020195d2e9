"""What importers share: options, sensors as their files show them, splits, reports, one import."""
