"""OpenGNSP on the wire, without any input or output: bytes in, messages out, and the other way round.

The written protocol is `protocols/opengnsp.md`; comments here cite its sections.
"""
