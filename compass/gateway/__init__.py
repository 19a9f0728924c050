"""Gateways: translations of the name service into protocols of the field. They decide nothing."""
