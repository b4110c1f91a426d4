"""Supervision of attempts: blame, exclusive turns, watchdog and progress."""
