"""What a model is: its record, its verified file, its answers, its card and its proof."""
