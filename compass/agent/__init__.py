"""Agent of a host without reactor and TLS: one session for all services of the machine, a replica, a journal.

The agent is the mirror image of the server: a notice comes in, the replica applies it, programs that watch and the
disk cache get the change, and the revision is acknowledged. Lookups are answered from memory and wait for no server.
"""
