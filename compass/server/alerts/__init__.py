"""Alerts: incidents of the catalogue, kept in an outbox until each channel has delivered them."""
