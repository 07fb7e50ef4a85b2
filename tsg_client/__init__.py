"""What a user installs: the console now."""
