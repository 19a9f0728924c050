"""Offline operations of an administrator on a store that no server uses."""
