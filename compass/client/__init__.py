"""What programs use: the session and API clients that services and administrators' tools are built on, and `opengnsc`."""
