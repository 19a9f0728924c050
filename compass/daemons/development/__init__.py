"""Development mode, `opengns dev`: a server and a host daemon in one process, for one person on one machine."""
