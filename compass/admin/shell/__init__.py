"""Ground of all commands of `opengnsadmin`: settings, session, requests, tables, exit codes."""
