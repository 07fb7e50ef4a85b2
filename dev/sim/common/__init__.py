"""What the simulators of CloudAPI and Nomad are made of alike.

server.py   a program that answers on a port, in a thread
knobs.py    what can be turned while it runs
wanted.py   what a field of an admin route may be
admin.py    /--sim: the routes that both have
"""
