"""`fnopt lr-find`: the learning rates at which a loss falls, found in one pass."""
