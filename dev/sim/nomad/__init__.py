"""A Nomad simulator: the part of HashiCorp Nomad that keeps service groups going, as a real HTTP program that really runs tasks.

One server with one client node. It answers as Nomad 1.1.0 does: every answer was held against a real agent's.

__main__.py    python -m dev.sim.nomad
simulator.py   Simulator: the same program inside a test
app.py         the routes, and what the knobs do to a request
resources.py   what each endpoint answers
admin.py       /--sim: look inside, turn knobs, move the clock
cluster.py     the cluster itself: jobs, children, allocations and time. No web framework
job.py         one job and its JSON object
shape.py       the fields of a job: their types and defaults
validate.py    what makes a job invalid, in Nomad's words
cron.py        when a periodic job is due
placement.py   which node a task group may run on
diff.py        what a plan says has changed
allocation.py  one run of a task group
task.py        one task of an allocation: its process, restarts and events
template.py    ${...} in a task's configuration and environment
knobs.py       everything that can be turned
counters.py    what was asked and answered
errors.py      the error bodies
"""
