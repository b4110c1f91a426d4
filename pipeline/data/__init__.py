"""Storage, manifests, images and labels. Knows neither the network nor Ray."""
