"""Registrations that local programs asked for: journal, state of each, process watch, probes."""
