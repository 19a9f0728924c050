"""What programs use: the blocking session with a server, the API of their own host, and `opengnsc`."""
