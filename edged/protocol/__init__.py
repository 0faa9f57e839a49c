"""The wire: public messages (clients), private ones (front and engine), codec and pulse. Imports errors only."""
