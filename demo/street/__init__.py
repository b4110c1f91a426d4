"""Parts of the drawn street scenes: camera, light, canvas, and one module per kind of object."""
