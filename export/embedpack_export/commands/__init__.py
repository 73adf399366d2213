"""Commands that this package adds to `embedpack`; see embedpack.commands."""
