"""Commands for people: the only place that prints for them."""
