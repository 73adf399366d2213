"""Full-precision reference that a pack is compared with."""
