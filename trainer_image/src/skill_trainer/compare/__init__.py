"""Many short runs on the same data: variants and seeds beside each other, skills one by one or one on the other."""
