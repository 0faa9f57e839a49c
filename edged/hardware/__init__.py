"""What the box is and how it feels: memory, pressure, heat, processors, accelerators.

Everything reads files below a `root` argument, so a recorded tree of /proc and /sys stands in for a board.
Imports nothing of edged but errors.
"""
