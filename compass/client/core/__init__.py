"""Core of the client library: the logic that its blocking, asyncio and Twisted faces share."""
