"""The app: routes, the order of middleware, error handlers. Any WSGI server may serve it."""

from typing import Any

import falcon

from shared.runtime.health import Health
from shared.spec.rollout import Ask
from tsg_api.auth.development import DevelopmentMode
from tsg_api.auth.middleware import Authenticate, Authenticator
from tsg_api.http import errors
from tsg_api.http.address import CallerAddress
from tsg_api.http.hooks import HOOKS
from tsg_api.http.limits import Buckets, LimitAccounts, LimitAddresses
from tsg_api.http.rehearsal import DryRuns
from tsg_api.http.request_log import Observe
from tsg_api.http.service import Service
from tsg_api.http.write import Once
from tsg_api.resources import console, groups, health, members, notifications, policies, rollouts, status, templates, verification
from tsg_api.schema import openapi


class App(falcon.App[falcon.Request, falcon.Response]):
    """Falcon, and HEAD wherever there is a GET (RFC 9110, section 9.1): Falcon leaves the body away."""

    def add_route(self, uri_template: str, resource: Any, **options: Any) -> None:
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get
        super().add_route(uri_template, resource, **options)


def create_app(service: Service, authenticator: Authenticator, healthy: Health) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application."""
    app = App()
    app.add_middleware(CallerAddress(service.trusted_proxy))
    app.add_middleware(Observe())
    if service.rate_per_address:
        app.add_middleware(LimitAddresses(Buckets(service.rate_per_address)))
    app.add_middleware(Authenticate(authenticator))
    if service.rate_per_account:
        app.add_middleware(LimitAccounts(Buckets(service.rate_per_account)))
    app.add_middleware(DryRuns())
    app.add_middleware(Once(service.db, service.max_body))
    app.req_options.strip_url_path_trailing_slash = True
    # Every body says what it is (tsg_api.schema.render): an answer without one has no type.
    app.resp_options.default_media_type = None  # type: ignore[assignment] # Falcon reads it as "none", and types it as a str
    errors.install(app)
    health.install(app, healthy)
    app.add_route(templates.BASE, templates.Templates(service))
    app.add_route(templates.BASE + "/{template_id}", templates.Template(service))
    app.add_route(templates.BASE + "/{template_id}/verification", verification.Verification(service))
    app.add_route(status.BASE, status.Statuses(service))
    app.add_route(groups.BASE, groups.Groups(service))
    app.add_route(groups.BASE + "/{group_id}", groups.Group(service))
    app.add_route(groups.BASE + "/{group_id}/increment", groups.Increment(service))
    app.add_route(groups.BASE + "/{group_id}/decrement", groups.Decrement(service))
    app.add_route(groups.BASE + "/{group_id}/instances", groups.Instances(service))
    member = groups.BASE + "/{group_id}/members/{machine_id}"
    app.add_route(groups.BASE + "/{group_id}/members", members.Members(service))
    app.add_route(member, members.Removal(service))
    app.add_route(member + "/protection", members.Protection(service))
    app.add_route(member + "/health", members.Health(service))
    app.add_route(member + "/detach", members.Detachment(service))
    rollout = groups.BASE + "/{group_id}/rollouts/{rollout_id}"
    app.add_route(groups.BASE + "/{group_id}/rollouts", rollouts.Rollouts(service))
    app.add_route(rollout, rollouts.OneRollout(service))
    for what in Ask:
        app.add_route(f"{rollout}/{what}", rollouts.Asking(service, what))
    app.add_route(groups.BASE + "/{group_id}/status", status.Status(service))
    app.add_route(groups.BASE + "/{group_id}/activities", status.Activities(service))
    in_development = isinstance(authenticator, DevelopmentMode)
    if in_development:
        console.install(app)
    _add_scaling(app, service)
    described = openapi.document(max_capacity=service.max_capacity, signed=not in_development)
    app.add_route(openapi.BASE + "/openapi.json", openapi.Description(described))
    app.add_route(openapi.BASE + "/docs", openapi.Page(described))
    return app


def _add_scaling(app: App, service: Service) -> None:
    """Groups that scale themselves, and tell."""
    app.add_route(groups.BASE + "/{group_id}/policies", policies.Policies(service))
    app.add_route(groups.BASE + "/{group_id}/policies/preview", policies.Preview(service))
    app.add_route(groups.BASE + "/{group_id}/policies/{policy_id}", policies.Policy(service))
    app.add_route(groups.BASE + "/{group_id}/policies/{policy_id}/rotate", policies.Rotate(service))
    app.add_route(groups.BASE + "/{group_id}/policies/{policy_id}/decisions", policies.PolicyDecisions(service))
    app.add_route(groups.BASE + "/{group_id}/decisions", policies.Decisions(service))
    app.add_route(groups.BASE + "/{group_id}/metrics/{name}", policies.Metric(service))
    app.add_route(HOOKS + "/{token}", policies.Hook(service))
    app.add_route(notifications.BASE, notifications.Notifications(service))
    app.add_route(notifications.BASE + "/{notification_id}", notifications.Notification(service))
    app.add_route(notifications.BASE + "/{notification_id}/rotate", notifications.Secret(service))
    app.add_route(notifications.BASE + "/{notification_id}/deliveries", notifications.Deliveries(service))
    app.add_route(notifications.BASE + "/{notification_id}/deliveries/{delivery_id}/replay", notifications.Replay(service))
