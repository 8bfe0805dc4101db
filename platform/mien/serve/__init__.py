"""A trained model over HTTP: a film goes in, what ``mien predict`` says of it comes out as JSON."""
