"""Process of a daemon: start, logging, reload on SIGHUP, garbage collection."""
