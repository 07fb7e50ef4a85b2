"""What a template can say: each field once, and all that follows from it. Pure: no table, no network."""
