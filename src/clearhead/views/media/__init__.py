"""What words look at in a picture or a sound: in numbers, in a terminal, as a figure and on a page."""
