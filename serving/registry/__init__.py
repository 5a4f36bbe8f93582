"""Which versions are loaded, who gets which, and what shadows them."""
