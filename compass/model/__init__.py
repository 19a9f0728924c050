"""Vocabulary and rules of the name service: pure values and pure functions.

Time, randomness, files, sockets and SQL stay outside: `now` and every random value are arguments. Decisions accept and
return the structs on the wire; there is no second set of classes.
"""
