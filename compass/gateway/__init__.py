"""Translations of the name service into protocols of the field: they are handed callables and decide nothing."""
