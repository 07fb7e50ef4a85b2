"""Carry steps out: one request to CloudAPI for each, in parallel; one `Done` for each, whatever came of it."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import chain, zip_longest

from structlog.contextvars import bound_contextvars

from shared.clients import cloudapi
from shared.clients.cloudapi import Client, CloudAPIError
from shared.plan.outcome import Done, Result
from shared.plan.steps import Delete, Launch
from shared.reasons import Reason
from shared.spec.machines import Instance
from shared.spec.spec import request
from shared.state import instances
from shared.state.group_state import DueGroup
from shared.state.leases import Lease
from shared.state.templates import Template
from shared.store.db import Database, is_unavailable
from tsg_workers.cloud.allowance import Allowance
from tsg_workers.cloud.ask import PARALLEL
from tsg_workers.cloud.problem import explained, reason_of
from tsg_workers.cloud.record import Recorder


@dataclass
class Assignment:
    """The steps of one group, and what stops the rest of them."""

    group: DueGroup
    steps: Sequence[Launch | Delete]
    #: What launches are made from; needed where there are any.
    template: Template | None = None
    #: No time or budget is left in this pass, or the group was changed meanwhile.
    stopped: bool = False
    #: CloudAPI refused a launch: it would refuse the next one too.
    refused: bool = False


class Hands:
    """Acts on one account's cloud in one pass. Thread-safe."""

    def __init__(self, database: Database, client: Client, lease: Lease, allowance: Allowance, recorder: Recorder) -> None:
        self._db = database
        self._client = client
        self._lease = lease
        self._allowance = allowance
        self._recorder = recorder

    def carry_out(self, assignments: Sequence[Assignment]) -> Mapping[str, list[Done]]:
        """All steps, going round the groups: a large one keeps no small one waiting. What was done, by group, in the order of its end."""
        done: dict[str, list[Done]] = {assignment.group.id: [] for assignment in assignments}
        by_group = [[(assignment, step) for step in assignment.steps] for assignment in assignments]
        in_turn = [pair for pair in chain.from_iterable(zip_longest(*by_group)) if pair is not None]
        if in_turn:
            self._allowance.renew()
            with ThreadPoolExecutor(min(PARALLEL, len(in_turn))) as pool:
                begun = {pool.submit(self._step, assignment, step): assignment.group.id for assignment, step in in_turn}
                for future in as_completed(begun):
                    done[begun[future]].append(future.result())
        return done

    def _step(self, assignment: Assignment, step: Launch | Delete) -> Done:
        """One step, and the record of it. A fault of this service costs its own group alone."""
        group = assignment.group
        with bound_contextvars(group_id=group.id, request_id=group.request_id):
            try:
                done = self._launch(assignment, step) if isinstance(step, Launch) else self._delete(assignment, step)
                self._recorder.done(group, done)
            except Exception as error:
                if is_unavailable(error):
                    raise
                done = Done(step, Result.CRASHED, error=error)
                self._recorder.done(group, done)
        return done

    def _launch(self, assignment: Assignment, step: Launch) -> Done:
        group, template = assignment.group, assignment.template
        if assignment.refused:
            return Done(step, Result.SKIPPED)
        if template is None or not self._may_begin(assignment):
            return Done(step, Result.LEFT)
        with self._db.read() as connection:
            launch_id = instances.insert_launch(connection, self._lease, group)
        if launch_id is None:
            assignment.stopped = True
            return Done(step, Result.LEFT)
        body = request(template.spec, Instance(group.id, group.name, template.id, launch_id))
        began = time.monotonic()
        try:
            machine = self._client.create_machine(body)
        except CloudAPIError as error:
            assignment.refused |= isinstance(error, cloudapi.Rejected)
            failed = self._failed(assignment, step, explained(error, template.spec), began, Reason.TEMPLATE_REJECTED)
            return failed._replace(launch_id=launch_id, doubted=isinstance(error, cloudapi.Broken))
        return Done(step, Result.DONE, time.monotonic() - began, launch_id=launch_id, machine_id=machine.id, state=machine.state)

    def _delete(self, assignment: Assignment, step: Delete) -> Done:
        if not self._may_begin(assignment):
            return Done(step, Result.LEFT)
        with self._db.read() as connection:
            if not instances.may_delete(connection, self._lease, assignment.group):
                assignment.stopped = True
                return Done(step, Result.LEFT)
        began = time.monotonic()
        try:
            self._client.delete_machine(step.instance.machine_id or "")
        except CloudAPIError as error:
            return self._failed(assignment, step, error, began, Reason.DELETION_REJECTED)
        return Done(step, Result.DONE, time.monotonic() - began)

    def _may_begin(self, assignment: Assignment) -> bool:
        if not assignment.stopped and not self._allowance.take():
            assignment.stopped = True
        return not assignment.stopped

    def _failed(self, assignment: Assignment, step: Launch | Delete, error: CloudAPIError, began: float, refusal: Reason) -> Done:
        """`refusal` is what it means when CloudAPI refuses this very request."""
        result, reason = Result.FAILED, reason_of(error, refusal=refusal)
        if isinstance(error, cloudapi.AnswerLost):
            result = Result.UNANSWERED
        elif isinstance(error, cloudapi.Withheld | cloudapi.Throttled):
            result = Result.PUT_OFF
            assignment.stopped = True
        return Done(step, result, time.monotonic() - began, error, None if isinstance(error, cloudapi.Withheld) else reason)
