"""The host's daemon: one session for all services of a machine, a replica of what they depend on, and their book.

It is the mirror image of the server: a notice comes in, the replica applies it, the programs that watch are told,
the disk is renewed, and the revision is acknowledged. Lookups are answered from memory and never wait for a server.
"""
