"""Commit: the only way to change the catalogue, and this server's replica of the log."""
