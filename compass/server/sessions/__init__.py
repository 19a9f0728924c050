"""Sessions of hosts and administrators: limits, rates, flow control, drain."""
