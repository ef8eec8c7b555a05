"""What `select` is made of: looks of pictures, duplicates, contamination, difficulty, and the books kept of them."""
