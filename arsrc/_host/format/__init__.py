"""Where in a file: blocks, chunks, footers, and the places of records."""
