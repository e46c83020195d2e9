"""What a person sees of a run: one page, its pictures, its tables, and the numbers as JSON."""
