"""Parts of measure_memory.py: what to measure, and the child that measures it."""
