"""Speed, memory and disk of the data stages, beside plain ways to do the same."""
