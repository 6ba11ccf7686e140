"""What arrives at weights, counted image by image and step by step."""
