"""Failure detection: evidence, probes, indirect probes, and the verdicts that they lead to."""
