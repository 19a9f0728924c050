"""The scene of `make run`: a private deployment of real daemons and services, and what happens to it."""
