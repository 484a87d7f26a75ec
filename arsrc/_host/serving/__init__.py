"""When: requests, runs of them, and what is loaded before it is asked for."""
