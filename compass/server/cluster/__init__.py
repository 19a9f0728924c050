"""Cluster: the other servers over the same store, and multicast announcements."""
