"""Command line `opengnsadmin`, for administrators: commands become requests, replies become tables or JSON."""
