"""Networks, and the interfaces that connect guests with them."""
