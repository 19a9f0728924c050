"""Explanations of what the rules and the selection do, in sentences."""
