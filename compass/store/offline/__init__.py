"""Offline operations: what an administrator does to a store that no server uses."""
