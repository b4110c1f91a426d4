"""Plain PyTorch networks of Yu & Koltun (ICLR 2016): front end, context module and dense prediction."""
