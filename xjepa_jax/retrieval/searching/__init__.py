"""From queries to answers: parsing a query, searching an index, and presenting the hits."""
