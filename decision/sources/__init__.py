"""The systems that facts are fetched from, and what keeps a slow or broken one from doing harm."""
