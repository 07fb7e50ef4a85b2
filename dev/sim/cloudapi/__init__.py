"""A CloudAPI simulator: the part of Joyent Triton's CloudAPI that a keeper of machine groups needs, as a real HTTP program.

__main__.py    python -m dev.sim.cloudapi
simulator.py   Simulator: the same program inside a test
app.py         the routes
pipeline.py    what happens to a request, in CloudAPI's order
resources.py   what each endpoint answers
admin.py       /--sim: look inside, turn knobs, kill machines
changefeed.py  WebSockets that get changes
cloud.py       the cloud itself: machines and time. No web framework
accounts.py    accounts, their users and keys
machine.py     one machine and its JSON object
order.py       reading a request for a new machine
options.py     what it may ask for beside name, image, package, networks, tags and metadata
disks.py      the disks of a virtual machine
placement.py  affinity: which servers a machine may stand on
listing.py     reading a machine list query
tags.py        tag rules
dns.py         the names of DNS that CNS makes of tags and metadata
catalog.py     packages, images, networks, volumes and their fixed ids
knobs.py       everything that can be turned
signature.py   HTTP signatures, the server's side
keys.py        SSH public keys
versions.py    Accept-Version ranges
counters.py    what was asked and answered
errors.py      the error bodies
"""
