"""Networks only: no paths of data, no argument parsing, no data set names."""
