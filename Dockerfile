# Images of the service and of the stack in docker-compose.yml. The last stage of each is a target:
#
#   service   tsg-api, tsg-worker, tsg-clock, tsg-scale and tsg-admin; what production runs
#   dev       the same, with the simulator of CloudAPI and the tour
#   edge      nginx, which ends TLS
#   nomad     a Nomad whose jobs can run tsg-scale
#
# None holds a secret, and none runs as root. Both builders of docker can build it.

FROM python:3.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# All that the lock file names, checked by hash; what the service needs of it is installed from there and from nowhere else.
COPY requirements.lock ./
RUN python -m pip download --quiet --require-hashes --dest /wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared ./shared
COPY tsg_api ./tsg_api
COPY tsg_client ./tsg_client
COPY tsg_workers ./tsg_workers
RUN python -m pip wheel --quiet --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/tsg \
    && /opt/tsg/bin/python -m pip install --quiet --no-index --find-links /wheels triton-service-groups \
    && /opt/tsg/bin/python -m pip uninstall --quiet --yes pip setuptools

FROM python:3.12-slim-bookworm AS service
RUN groupadd --gid 10001 tsg \
    && useradd --uid 10001 --gid tsg --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin tsg
COPY dev/deploy/image/http-ok /usr/local/bin/http-ok
COPY --from=build /opt/tsg /opt/tsg
ENV PATH=/opt/tsg/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["tsg-api"]

FROM service AS dev
COPY dev /opt/stack/dev
WORKDIR /opt/stack

FROM python:3.12-slim-bookworm AS edge
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10002 edge \
    && useradd --uid 10002 --gid edge --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin edge
COPY dev/deploy/image/http-ok /usr/local/bin/http-ok
COPY dev/deploy/edge/nginx.conf /etc/edge/nginx.conf
USER 10002:10002
EXPOSE 8443
STOPSIGNAL SIGQUIT
CMD ["nginx", "-c", "/etc/edge/nginx.conf"]

FROM hashicorp/nomad:1.9 AS nomad-program

FROM service AS nomad
COPY --from=nomad-program /bin/nomad /usr/local/bin/nomad
COPY dev/deploy/nomad/agent.hcl /etc/nomad/agent.hcl
# Not root: then Nomad leaves cgroups and mounts alone, and needs no privilege of the machine's.
CMD ["nomad", "agent", "-config=/etc/nomad/agent.hcl"]
