"""The engine process: owns one model, its KV memory and the order of work. Started by the front, dies with it."""
