"""edged: a private model server for one edge box."""

__version__ = "0.1.0"
