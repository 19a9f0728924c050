"""OpenGNSP on the wire, without input or output: bytes to messages, and messages to bytes.

The written protocol is `protocols/opengnsp.md`; comments here cite its sections.
"""
