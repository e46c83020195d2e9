"""Archives as directories of descriptors in GeoParquet: listing, reading, computing, writing."""
