"""What the product is measured against, as people write it."""
