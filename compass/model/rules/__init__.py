"""Rules: pure functions from (catalogue, request, principal, now) to a decision."""
