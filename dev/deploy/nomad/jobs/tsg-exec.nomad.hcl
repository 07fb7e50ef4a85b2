# Runs Triton Service Groups itself on Nomad, as programs installed on the nodes (pip install triton-service-groups).
#
#   nomad job validate dev/deploy/nomad/jobs/tsg-exec.nomad.hcl
#   nomad job run dev/deploy/nomad/jobs/tsg-exec.nomad.hcl
#
# Needs nodes of this datacenter with meta.role = "automater", on which /etc/tsg/tsg.toml says where the database, Redis and CloudAPI are
# and holds the secret keys, and /etc/tsg/tsg-clock.toml says the same without the secret keys: readable by the user of the tasks alone.
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

  update {
    max_parallel = 1
    auto_revert  = true
  }

  group "api" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      port "http" {
        static = var.http_port
      }
    }

    task "tsg-api" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-api"
        args    = ["--config", "/etc/tsg/tsg.toml", "--bind", "${NOMAD_IP_http}", "--port", "${NOMAD_PORT_http}"]
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }

  group "worker" {
    count = 2

    task "tsg-worker" {
      driver       = "exec"
      kill_timeout = "30s"

      config {
        command = "${var.bin}/tsg-worker"
        args    = ["--config", "/etc/tsg/tsg.toml"]
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

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    task "tsg-clock" {
      driver = "exec"

      config {
        command = "${var.bin}/tsg-clock"
        args    = ["--config", "/etc/tsg/tsg-clock.toml"]
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

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    task "tsg-feed" {
      driver = "exec"

      config {
        command = "${var.bin}/tsg-feed"
        args    = ["--config", "/etc/tsg/tsg.toml"]
      }

      resources {
        cpu    = 100
        memory = 384
      }
    }
  }
}
