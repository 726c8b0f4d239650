"""Speed, side by side with peers. Run by hand; nothing here is asserted in a test."""
