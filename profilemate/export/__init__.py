"""One module per output format, each from a Session; nothing here runs inside the server."""
