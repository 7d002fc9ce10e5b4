"""What scoring gives: predictions, the score table written, and read back."""
