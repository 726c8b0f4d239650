"""What is compared: surrogates on problems, over seeds."""
