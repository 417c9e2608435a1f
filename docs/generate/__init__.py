"""What the site has beside the pages in this folder: it is made from sources, files and records."""
