"""Topology files: TOML with line numbers, and the plan of changes that a file asks for."""
