"""The command line: one table of commands, one module for each group of them."""
