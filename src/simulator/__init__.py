"""A stand-in for a LocalAI server: same wire, same manners, no model. Used only when asked for."""
