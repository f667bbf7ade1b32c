"""Work in processes or on Ray, with one account of what was kept and rejected."""
