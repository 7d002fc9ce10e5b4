"""From the name of a model to a verified file: bundled, cached, or fetched from a registry."""
