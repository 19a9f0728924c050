"""Worker processes of one `opengnssd`: supervisor, worker, and the messages between them."""
