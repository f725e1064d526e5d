"""Wrappers: (GradientTransformation, ...) -> GradientTransformation."""
