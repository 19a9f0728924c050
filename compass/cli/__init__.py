"""Command line `opengnsc`, for services and scripts on a host."""
