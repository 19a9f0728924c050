"""Replica of what this host depends on: synchronization, suspicions, disk cache, change feed."""
