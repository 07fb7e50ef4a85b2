"""`dev/many`: the service on many machines, each of which is killed in turn while it works.

hosts.py     the machines: network namespaces on one bridge, in a network of their own
cluster.py   what runs on them: the edge, the programs, three PostgreSQL, two Valkeys, three Sentinels
faults.py    what is killed, and who steps in
owners.py    accounts that change their groups all the time, and how long that takes them
"""
