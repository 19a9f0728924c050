"""The systems that are measured: compass and its peers, each started here with its own data on this machine."""
