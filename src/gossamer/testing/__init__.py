"""For your own tests: record what providers answered, and replay it without them."""
