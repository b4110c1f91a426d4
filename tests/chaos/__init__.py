"""What is killed, and what is left."""
