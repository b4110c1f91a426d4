"""Imported networks: a program that torch.export wrote, in an archive that is judged before torch reads it."""
