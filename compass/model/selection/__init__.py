"""Selection: which listener of a pool a user gets, by the policies of RFC 5356 and locality."""
