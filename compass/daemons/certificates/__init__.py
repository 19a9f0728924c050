"""Certificates that change while a daemon runs, or before: signing, renewal, and the first one of a host."""
