"""What the drawn street scenes are made of: camera, light, canvas, and one module per kind of thing in a street."""
