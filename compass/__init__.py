"""compass: a global name service (OpenGNS) that pushes changes to those who depend on them."""

__version__ = "0.1.0"
