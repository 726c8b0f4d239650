"""Running trials: here, in processes that may hang or die, or on many machines."""
