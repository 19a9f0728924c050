"""Prometheus metrics of both daemons."""
