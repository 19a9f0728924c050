"""Assembly of `opengnssd` and `opengnscd`: configuration in, running services out."""
