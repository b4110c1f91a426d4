"""Networks: the contract of front ends, the context module that goes on top of any of them, and the families."""
