"""Tuning: many settings trained at once, and the learning rates at which a loss falls."""
