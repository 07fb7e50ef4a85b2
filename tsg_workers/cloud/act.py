"""Carry steps out: the requests to CloudAPI of each, in parallel; one `Done` for each, whatever came of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest

from structlog.contextvars import bound_contextvars

from shared.clients import cloudapi
from shared.clients.cloudapi import CNS_STATUS, Client, CloudAPIError
from shared.plan.outcome import Done, Result
from shared.plan.steps import Act, Delete, Drain, Launch, Undrain, Update
from shared.reasons import Reason
from shared.spec.in_place import changes
from shared.spec.machines import Instance
from shared.spec.spec import request
from shared.state import instances
from shared.state.group_state import DueGroup
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
    steps: Sequence[Act]
    #: By their ids: of the group, and of instances that are updated.
    templates: Mapping[str, Template] = field(default_factory=dict)
    #: The group was changed meanwhile, or CloudAPI takes no more requests.
    stopped: bool = False
    #: No further step finds time or budget in this pass. Those that wait for their turn have it.
    is_over: bool = False
    #: CloudAPI refused a launch: it would refuse the next one too.
    refused: bool = False
    #: Machines of the group are on their way out: until they are gone they take up the account's quota.
    makes_room: bool = False
    #: Nothing is launched before what goes is gone for CloudAPI, and as much less as did not go: a rollout has a bound, and a quota may be
    #: as large as the group.
    in_order: bool = False

    @property
    def template(self) -> Template | None:
        """What launches are made from."""
        return self.templates.get(self.group.template_id)


class Executor:
    """Carries out the steps of one pass over one account. Thread-safe."""

    def __init__(self, database: Database, client: Client, allowance: Allowance, recorder: Recorder) -> None:
        self._db = database
        self._client = client
        self._lease = recorder.lease
        self._allowance = allowance
        self._recorder = recorder

    def carry_out(self, assignments: Sequence[Assignment]) -> Mapping[str, list[Done]]:
        """All steps, going round the groups: a large one keeps no small one waiting. What was done, by group, in the order of its end."""
        done: dict[str, list[Done]] = {assignment.group.id: [] for assignment in assignments}
        self._in_parallel(
            done, [[(one, step) for step in one.steps if not (one.in_order and isinstance(step, Launch))] for one in assignments]
        )
        self._in_parallel(done, [_launches_after(one, done[one.group.id]) for one in assignments if one.in_order])
        return done

    def _in_parallel(self, done: Mapping[str, list[Done]], by_group: Sequence[Sequence[tuple[Assignment, Act]]]) -> None:
        in_turn = [pair for pair in chain.from_iterable(zip_longest(*by_group)) if pair is not None]
        if in_turn:
            self._allowance.renew()
            with ThreadPoolExecutor(min(PARALLEL, len(in_turn))) as pool:
                begun = {pool.submit(self._step, assignment, step): assignment.group.id for assignment, step in in_turn}
                for future in as_completed(begun):
                    done[begun[future]].append(future.result())

    def _step(self, assignment: Assignment, step: Act) -> Done:
        """One step, and the record of it. A fault of this service costs its own group alone."""
        group = assignment.group
        with bound_contextvars(group_id=group.id, request_id=group.request_id):
            try:
                done = self._acted(assignment, step)
                self._recorder.record_step(group, done)
            except Exception as error:
                if is_unavailable(error):
                    raise
                done = Done(step, Result.CRASHED, error=error)
                self._recorder.record_step(group, done)
        return done

    def _acted(self, assignment: Assignment, step: Act) -> Done:
        if isinstance(step, Launch):
            return self._launch(assignment, step)
        if not self._may_begin(assignment):
            return Done(step, Result.LEFT)
        match step:
            case Delete():
                return self._delete(assignment, step)
            case Drain():
                return self._drain(assignment, step)
            case Undrain():
                return self._undrain(assignment, step)
            case Update():
                return self._update(assignment, step)

    def _launch(self, assignment: Assignment, step: Launch) -> Done:
        group, template = assignment.group, assignment.template
        if assignment.refused:
            return Done(step, Result.SKIPPED)
        if template is None or not self._may_begin(assignment):
            return Done(step, Result.LEFT)
        with self._db.read() as connection:
            launch_id = instances.insert_launch(connection, self._lease, group)
        if launch_id is None:
            return _changed_meanwhile(assignment, step)
        body = request(template.spec, Instance(group.id, group.name, template.id, launch_id))
        began = time.monotonic()
        try:
            machine = self._client.create_machine(body)
        except CloudAPIError as error:
            assignment.refused |= isinstance(error, cloudapi.Rejected)
            failed = self._failed(assignment, step, explained(error, template.spec), began, Reason.TEMPLATE_REJECTED)
            if assignment.makes_room and isinstance(error, cloudapi.QuotaExceeded):
                failed = failed._replace(result=Result.NO_ROOM, reason=None)
            return failed._replace(launch_id=launch_id, doubted=isinstance(error, cloudapi.Broken))
        return Done(step, Result.DONE, time.monotonic() - began, launch_id=launch_id, machine_id=machine.id, state=machine.state)

    def _delete(self, assignment: Assignment, step: Delete) -> Done:
        if not self._may_change(assignment):
            return _changed_meanwhile(assignment, step)
        machine_id = step.instance.machine_id or ""
        return self._asked(assignment, step, Reason.DELETION_REJECTED, lambda: self._client.delete_machine(machine_id))

    def _drain(self, assignment: Assignment, step: Drain) -> Done:
        """DNS first: the row says before that the drain was begun, and after it when it is over."""
        machine_id, instance_id = step.instance.machine_id or "", step.instance.id
        with self._db.read() as connection:
            seconds = None if step.leaves_dns else step.seconds
            if not instances.mark_draining(connection, self._lease, assignment.group, instance_id, seconds=seconds):
                return _changed_meanwhile(assignment, step)
        if not step.leaves_dns:
            return Done(step, Result.DONE)
        done = self._asked(assignment, step, Reason.DRAIN_REJECTED, lambda: self._client.add_metadata(machine_id, {CNS_STATUS: "down"}))
        if done.result == Result.DONE:
            with self._db.read() as connection:
                instances.mark_drained(connection, instance_id, seconds=step.seconds)
        return done

    def _undrain(self, assignment: Assignment, step: Undrain) -> Done:
        if not self._may_change(assignment):
            return _changed_meanwhile(assignment, step)
        done = Done(step, Result.DONE)
        if step.joins_dns:
            machine_id = step.instance.machine_id or ""
            done = self._asked(assignment, step, Reason.DRAIN_REJECTED, lambda: self._client.add_metadata(machine_id, {CNS_STATUS: "up"}))
        if done.result == Result.DONE:
            with self._db.read() as connection:
                instances.mark_undrained(connection, self._lease, step.instance.id)
        return done

    def _update(self, assignment: Assignment, step: Update) -> Done:
        """One call for each kind of thing that differs; each may be made again."""
        before, after, group = assignment.templates.get(step.instance.template_id or ""), assignment.template, assignment.group
        if before is None or after is None or not self._may_change(assignment):
            return _changed_meanwhile(assignment, step)
        wanted = changes(before.spec, after.spec, Instance(group.id, group.name, after.id, step.instance.id))
        client, machine_id = self._client, step.instance.machine_id or ""

        def calls() -> Iterator[Callable[[], None]]:
            if wanted.metadata:
                yield partial(client.add_metadata, machine_id, wanted.metadata)
            yield from (partial(client.delete_metadata, machine_id, key) for key in wanted.metadata_gone)
            if wanted.firewall is not None:
                yield partial(client.set_firewall, machine_id, enabled=wanted.firewall)
            yield from (partial(client.delete_tag, machine_id, tag) for tag in wanted.tags_gone)
            yield partial(client.add_tags, machine_id, wanted.tags)

        def ask() -> None:
            for number, call in enumerate(calls()):
                if number and not self._allowance.take():
                    raise cloudapi.Withheld("this pass has no time left: the next one goes on")
                call()

        done = self._asked(assignment, step, Reason.TEMPLATE_REJECTED, ask)
        if done.result == Result.DONE:
            with self._db.read() as connection:
                instances.mark_updated(connection, step.instance.id, after.id)
        return done

    def _may_begin(self, assignment: Assignment) -> bool:
        if assignment.stopped or assignment.is_over:
            return False
        if not self._allowance.take():
            assignment.is_over = True
            return False
        return not assignment.stopped

    def _may_change(self, assignment: Assignment) -> bool:
        with self._db.read() as connection:
            return instances.may_delete(connection, self._lease, assignment.group)

    def _asked(self, assignment: Assignment, step: Act, refusal: Reason, ask: Callable[[], None]) -> Done:
        """What came of requests. `refusal` is what it means when CloudAPI refuses one."""
        began = time.monotonic()
        try:
            ask()
        except cloudapi.NotFound:
            # The machine went meanwhile: the next look sees it.
            return Done(step, Result.LEFT)
        except CloudAPIError as error:
            return self._failed(assignment, step, error, began, refusal)
        return Done(step, Result.DONE, time.monotonic() - began)

    def _failed(self, assignment: Assignment, step: Act, error: CloudAPIError, began: float, refusal: Reason) -> Done:
        result, reason = Result.FAILED, reason_of(error, refusal=refusal)
        if isinstance(error, cloudapi.AnswerLost):
            result = Result.UNANSWERED
        elif isinstance(error, cloudapi.Withheld | cloudapi.Throttled):
            result = Result.PUT_OFF
            assignment.stopped = True
        return Done(step, result, time.monotonic() - began, error, None if isinstance(error, cloudapi.Withheld) else reason)


def _launches_after(assignment: Assignment, done: Sequence[Done]) -> list[tuple[Assignment, Act]]:
    """The launches that there is room for after what was done."""
    left = sum(isinstance(one.step, Delete) and one.result != Result.DONE for one in done)
    launches = [step for step in assignment.steps if isinstance(step, Launch)]
    return [(assignment, step) for step in launches[: len(launches) - left]]


def _changed_meanwhile(assignment: Assignment, step: Act) -> Done:
    """The lease or the group is not what it was: nothing more is done for the group."""
    assignment.stopped = True
    return Done(step, Result.LEFT)
