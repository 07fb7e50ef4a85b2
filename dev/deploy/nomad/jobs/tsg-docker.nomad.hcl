# Runs Triton Service Groups itself on Nomad, from its docker image.
#
#   nomad job validate dev/deploy/nomad/jobs/tsg-docker.nomad.hcl
#   nomad job run dev/deploy/nomad/jobs/tsg-docker.nomad.hcl
#
# Needs the docker plugin's volumes.enabled on the nodes, and nodes of this datacenter with meta.role = "automater", on which /etc/tsg/tsg.toml says where the database, Redis and CloudAPI are
# and holds the secret keys, and /etc/tsg/tsg-clock.toml says the same without the secret keys: readable by the user of the tasks alone.
# Nothing secret stands here: whoever may read jobs may read this.
# The tables are made, and brought up to date, by hand before the first run and each upgrade: tsg-admin --config /etc/tsg/tsg.toml db upgrade

variable "datacenter" {
  type    = string
  default = "us-east-1"
}

variable "image" {
  type        = string
  default     = "triton-service-groups"
  description = "The image, with its tag."
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
        to     = 3000
      }
    }

    task "tsg-api" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image   = var.image
        command = "tsg-api"
        args    = ["--config", "/etc/tsg/tsg.toml", "--bind", "0.0.0.0", "--port", "3000"]
        ports   = ["http"]
        volumes = ["/etc/tsg:/etc/tsg:ro"]
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
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image   = var.image
        command = "tsg-worker"
        args    = ["--config", "/etc/tsg/tsg.toml"]
        volumes = ["/etc/tsg:/etc/tsg:ro"]
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
      driver = "docker"

      config {
        image   = var.image
        command = "tsg-clock"
        args    = ["--config", "/etc/tsg/tsg-clock.toml"]
        volumes = ["/etc/tsg/tsg-clock.toml:/etc/tsg/tsg-clock.toml:ro"]
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
      driver = "docker"

      config {
        image   = var.image
        command = "tsg-feed"
        args    = ["--config", "/etc/tsg/tsg.toml"]
        volumes = ["/etc/tsg:/etc/tsg:ro"]
      }

      resources {
        cpu    = 100
        memory = 384
      }
    }
  }
}
