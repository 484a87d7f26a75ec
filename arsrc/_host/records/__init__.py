"""What: the records of all files as one sequence, decoded, and kept where asked for."""
