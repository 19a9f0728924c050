"""Queries: requests that are answered from memory."""
