"""Small parts of the operating system that several layers use: files, sd_notify."""
