"""Selection of a listener from a pool for a user, by the policies of RFC 5356 and locality."""
