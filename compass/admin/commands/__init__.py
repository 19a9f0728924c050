"""Commands of `opengnsadmin`, one file for each kind of object."""
