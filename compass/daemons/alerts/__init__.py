"""Channels by which alerts leave the server: SMTP, webhook, syslog, command."""
