"""What an export measured, as figures and as a page to read."""
