"""What `import ipo` offers: the same functions that the commands call, and runs to look at and predict with."""
