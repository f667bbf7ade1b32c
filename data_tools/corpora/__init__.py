"""One reader per release."""
