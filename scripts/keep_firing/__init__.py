"""What quantizing by firing keeps: the study's cells stored, and its page written from them."""
