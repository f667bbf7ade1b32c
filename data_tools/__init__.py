"""Raw media to tensors; knows no model."""
