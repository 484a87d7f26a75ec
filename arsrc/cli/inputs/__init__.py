"""What files of other formats hold, record by record."""
