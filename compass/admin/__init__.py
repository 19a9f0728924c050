"""The administrators' shell: turns commands into requests and replies into tables or JSON."""
