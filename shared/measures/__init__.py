"""What policies measure, and where: each source in a module, and `gather`, which asks them without letting one hold up another.

A source answers with a value, or with why there is none; it raises nothing that a slow or wrong server could cause.
"""
