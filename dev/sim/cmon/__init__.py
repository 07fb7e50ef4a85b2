"""A simulator of CMON, Triton's container monitor: HTTPS with client certificates, metrics of the machines of a simulated cloud.

simulator.py   serves, and checks certificates as triton-cmon does
metrics.py     what a machine says, by the load that the test or the curve gives it
"""
