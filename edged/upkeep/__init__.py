"""The daemon's side of updates: wakes the updater, tests and takes over what it staged, answers `update.*`."""
