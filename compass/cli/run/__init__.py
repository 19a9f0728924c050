"""Supervisor `opengnsc run`: a process that is registered while it listens."""
