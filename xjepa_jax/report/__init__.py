"""The report of a run: one page, its pictures and tables, and all numbers as JSON."""
