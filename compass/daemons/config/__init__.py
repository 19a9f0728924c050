"""Configuration files of both daemons: settings, readers, secrets, server lists."""
