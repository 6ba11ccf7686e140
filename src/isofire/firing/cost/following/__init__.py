"""A forward pass followed operation by operation, to every place where something is multiplied with weights."""
