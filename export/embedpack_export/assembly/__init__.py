"""Pack on disk: graphs, files and the manifest that names them."""
