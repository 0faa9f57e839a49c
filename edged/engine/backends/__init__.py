"""One file per native library behind the `Backend` interface of base.py; each is its only importer."""
