"""Public models from a hub into the store, when the owner asks for one and never otherwise."""
