"""Which rows there are: tables from rows to records, in NumPy alone."""
