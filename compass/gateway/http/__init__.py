"""HTTP for both APIs: bounded requests, OpenAPI, event streams, long polls, health."""
