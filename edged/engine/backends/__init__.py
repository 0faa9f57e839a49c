"""The native libraries behind the `Backend` interface of base.py; nothing else in the engine imports them."""
