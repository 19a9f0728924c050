"""DNS gateway of the host: messages, zone, UDP and TCP servers."""
