"""Tools of fleet ops, on their own machine: make keys, describe releases, sign, publish. No device runs this."""
