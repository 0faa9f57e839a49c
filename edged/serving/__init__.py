"""The front process: sockets, validation, streams, engine supervision. Never imports a native inference library."""
