"""What services and scripts use: the blocking link to a server, the API of their own host, and `opengnsc`."""
