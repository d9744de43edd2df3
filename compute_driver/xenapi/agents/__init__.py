"""The agents inside guests, reached through the dom0 plugin."""
