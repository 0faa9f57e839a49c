"""Is this box fit to serve, and if not, what to do: checks as pure functions of facts that the command gathers."""
