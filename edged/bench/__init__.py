"""The benchmark: the daemon against the bare genai loop, alternating, in one run. Medians and ratios."""
