"""A simulator of HashiCorp Nomad, as far as service groups need it: a real HTTP program that really runs the tasks of periodic jobs.

One server with one client node. What Nomad says otherwise is the business of `dev/test --nomad ADDR`, which takes a real agent.

__main__.py    python -m dev.sim.nomad
simulator.py   Simulator: the same program inside a test
app.py         the routes, and what the knobs do to a request
resources.py   what each endpoint answers
admin.py       /--sim: the state, the knobs, the clock
cluster.py     jobs, their schedule and their runs
job.py         one job: what makes it invalid, when it is due, why no node would take it
run.py         one run of a job: its process, and its events
knobs.py       everything that can be turned
counters.py    what was asked and answered
errors.py      the error bodies
"""
