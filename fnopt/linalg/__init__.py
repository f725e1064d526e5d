"""Linear algebra of optimizers: orthogonal factors, roots and eigenvalues by matrix products."""
