"""Putting the service in place on a machine: which files, with what in them. Asks the machine nothing by itself."""
