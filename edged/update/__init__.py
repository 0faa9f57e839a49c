"""Signed model updates: trust, fetch, health, journal."""
