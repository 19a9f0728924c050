"""Catalogue: the state of the name service as one immutable value, with its digest and indexes."""
