# Runs Triton Service Groups itself on Nomad, as programs installed on the nodes (pip install triton-service-groups).
#
#   nomad job validate dev/deploy/nomad/jobs/tsg-exec.nomad.hcl
#   nomad job run dev/deploy/nomad/jobs/tsg-exec.nomad.hcl
#
# Needs Nomad 1.5 or later (its own services and their checks), nodes of this datacenter with meta.role = "automater", on which
# /etc/tsg/tsg.toml says where the database, Redis and CloudAPI are
# and holds the secret keys and the settings of policies and notifications, and /etc/tsg/tsg-clock.toml says the same without the secret keys: readable by the user of the tasks alone.
# Nothing secret stands here: whoever may read jobs may read this.
# The tables are made, and brought up to date, by hand before the first run and each upgrade: tsg-admin --config /etc/tsg/tsg.toml db upgrade

variable "datacenter" {
  type    = string
  default = "us-east-1"
}

variable "bin" {
  type        = string
  default     = "/usr/local/bin"
  description = "Where the programs are on the nodes: under /usr, which the chroot of exec has."
}

variable "http_port" {
  type        = number
  default     = 3000
  description = "Where tsg-api listens, on each of its nodes."
}

job "triton-sg" {
  datacenters = [var.datacenter]
  type        = "service"

  constraint {
    attribute = "${meta.role}"
    value     = "automater"
  }

  # Over as many nodes as there are; on one, if that is all that is left.
  spread {
    attribute = "${node.unique.id}"
  }

  # One process of each kind after the other, when the checks of the one before have passed; if they do not, all is as it was before. No
  # canaries: Nomad promotes them by itself only where all groups have them, and tsg-api's port is its node's.
  update {
    max_parallel      = 1
    auto_revert       = true
    min_healthy_time  = "10s"
    healthy_deadline  = "2m"
    progress_deadline = "10m"
  }

  group "api" {
    count = 2

    network {
      port "http" {
        static = var.http_port
      }
    }

    # Nomad tells its callers first; then tsg-api has TSG_DRAIN_SECONDS for those that have not heard.
    shutdown_delay = "3s"

    # A process that ends is started again at once, on its node; Nomad finds another node for one whose node is gone.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # A deployment waits for both checks. A process is restarted when it does not answer at all, and not when it lacks the database.
    service {
      name     = "tsg-api"
      provider = "nomad"
      port     = "http"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "tsg-api" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-api"
        args    = ["--config", "/etc/tsg/tsg.toml", "--bind", "${NOMAD_IP_http}", "--port", "${NOMAD_PORT_http}"]
      }

      env {
        TSG_DRAIN_SECONDS = "5"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }

  group "worker" {
    count = 2

    network {
      port "watch" {}
    }

    # A process that ends is started again at once, on its node; Nomad finds another node for one whose node is gone.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # A deployment waits for both checks. A process is restarted when it does not answer at all, and not when it lacks the database.
    service {
      name     = "tsg-worker"
      provider = "nomad"
      port     = "watch"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "tsg-worker" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-worker"
        args    = ["--config", "/etc/tsg/tsg.toml"]
      }

      env {
        TSG_METRICS_BIND = "${NOMAD_IP_watch}"
        TSG_METRICS_PORT = "${NOMAD_PORT_watch}"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }

  # Either does the work of both: when one dies, or its node, the other goes on.
  group "clock" {
    count = 2

    network {
      port "watch" {}
    }

    # A process that ends is started again at once, on its node; Nomad finds another node for one whose node is gone.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # A deployment waits for both checks. A process is restarted when it does not answer at all, and not when it lacks the database.
    service {
      name     = "tsg-clock"
      provider = "nomad"
      port     = "watch"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "tsg-clock" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-clock"
        args    = ["--config", "/etc/tsg/tsg-clock.toml"]
      }

      env {
        TSG_METRICS_BIND = "${NOMAD_IP_watch}"
        TSG_METRICS_PORT = "${NOMAD_PORT_watch}"
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }

  # They share the accounts: when one dies, the other has all.
  group "feed" {
    count = 2

    network {
      port "watch" {}
    }

    # A process that ends is started again at once, on its node; Nomad finds another node for one whose node is gone.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # A deployment waits for both checks. A process is restarted when it does not answer at all, and not when it lacks the database.
    service {
      name     = "tsg-feed"
      provider = "nomad"
      port     = "watch"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "30s"
        }
      }
    }

    task "tsg-feed" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-feed"
        args    = ["--config", "/etc/tsg/tsg.toml"]
      }

      env {
        TSG_METRICS_BIND = "${NOMAD_IP_watch}"
        TSG_METRICS_PORT = "${NOMAD_PORT_watch}"
      }

      resources {
        cpu    = 100
        memory = 384
      }
    }
  }
}
