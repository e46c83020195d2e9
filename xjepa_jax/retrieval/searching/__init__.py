"""Queries -> answers: what is asked, what an index finds, and how it is shown."""
