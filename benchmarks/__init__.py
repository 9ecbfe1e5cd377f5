"""Speed and quality, each number from a command; a room for each thing that is measured."""
