"""How experts are used, and what goes wrong with them."""
