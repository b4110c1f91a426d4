"""The networks of Yu & Koltun (ICLR 2016): front end, context module, dense prediction. Plain PyTorch."""
