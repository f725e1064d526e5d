"""`fnopt sweep`: all settings of a grid, trained at once."""
