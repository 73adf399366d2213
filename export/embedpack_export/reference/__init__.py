"""The full-precision reference that every pack is compared with."""
