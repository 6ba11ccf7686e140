"""What is known of tensors between neurons and weights: how many events are in each element, and how that passes on."""
