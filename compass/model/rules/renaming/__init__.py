"""Renaming of a category or a service: what is refused, and what becomes of the rows."""
