"""One file for each step; files are never changed once released."""
