"""Vocabulary and rules of the name service: pure values and pure functions.

Time, randomness, files, sockets and SQL stay outside: `now` and every random value are arguments. The structs that a
decision takes and returns are the structs on the wire; there is no second set of classes.
"""
