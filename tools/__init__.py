"""What the project needs for itself: the size budget and the generated reference. Not part of the package."""
