"""What the machine gives: threads, memory, waiting for each other, and counts of all this."""
