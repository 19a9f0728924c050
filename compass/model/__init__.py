"""The vocabulary and the rules of the name service: pure values and pure functions.

Nothing here knows of time, randomness, files, sockets or SQL: `now` and every random value are arguments.
What a decision takes and returns is what the wire spells; there is no second set of classes.
"""
