"""Push: changes to the hosts that depend on them, and snapshots for hosts that begin."""
