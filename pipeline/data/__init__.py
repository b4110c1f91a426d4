"""Storage, manifests, images and labels, independent of the network and of Ray."""
