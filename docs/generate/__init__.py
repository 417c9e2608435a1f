"""Generated pages of the site, made from sources, files and records."""
