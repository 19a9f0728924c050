"""DNS gateway of both daemons: messages, zone, UDP and TCP servers."""
