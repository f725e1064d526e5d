"""What a training step needs in memory, told from shapes alone."""
