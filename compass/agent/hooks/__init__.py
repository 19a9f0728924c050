"""Hooks and templates: commands that run, and files that are rendered, after a change."""
