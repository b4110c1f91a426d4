"""Import of networks: from an exported program or a published layout to one archive that the jobs predict with."""
