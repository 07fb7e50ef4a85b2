# Runs Triton Service Groups itself on Nomad: from its docker image, or as programs installed on the nodes by pip.
#
#   nomad job run dev/deploy/nomad/tsg.nomad.hcl
#   nomad job run -var driver=exec dev/deploy/nomad/tsg.nomad.hcl
#
# Needs Nomad 1.5 or later (its own services and their checks); for docker, the plugin's volumes.enabled on the nodes; and nodes of this
# datacenter with meta.role = "automater". On these, /etc/tsg/tsg.toml says where the database, Redis and CloudAPI are, and holds the secret
# keys and the settings of policies and notifications; /etc/tsg/tsg-clock.toml says the same without the secret keys. Only the user of the
# tasks can read them. Nothing secret stands here: everybody who may read jobs may read this.
# The tables are made, and brought up to date, by hand before the first run and each upgrade:
# tsg-admin --config /etc/tsg/tsg.toml db upgrade

variable "datacenter" {
  type    = string
  default = "us-east-1"
}

variable "driver" {
  type        = string
  default     = "docker"
  description = "docker or exec."
}

variable "image" {
  type        = string
  default     = "triton-service-groups"
  description = "The image, with its tag, for docker."
}

variable "bin" {
  type        = string
  default     = "/usr/local/bin"
  description = "Where the programs are on the nodes, for exec: under /usr, which its chroot has."
}

variable "http_port" {
  type        = number
  default     = 3000
  description = "Where tsg-api listens, on each of its nodes."
}

locals {
  docker = var.driver == "docker"

  # A container has an address of its own, and its ports are mapped to the node's; exec has the node's.
  http  = local.docker ? ["0.0.0.0", "3000"] : ["$${NOMAD_IP_http}", "$${NOMAD_PORT_http}"]
  watch = local.docker ? ["0.0.0.0", "9102"] : ["$${NOMAD_IP_watch}", "$${NOMAD_PORT_watch}"]

  monitor = { TSG_METRICS_BIND = local.watch[0], TSG_METRICS_PORT = local.watch[1] }

  # Each finds its settings in a file of the node; a container is given `mount`, in which that file is.
  programs = {
    api = {
      settings = "/etc/tsg/tsg.toml", mount = "/etc/tsg", port = "http", cpu = 500, memory = 256
      args = ["--bind", local.http[0], "--port", local.http[1]]
      # Nomad tells its callers first; then tsg-api has TSG_DRAIN_SECONDS for those that have not heard.
      shutdown_delay = "3s", env = { TSG_DRAIN_SECONDS = "5" }
    }
    worker = {
      settings = "/etc/tsg/tsg.toml", mount = "/etc/tsg", port = "watch", cpu = 500, memory = 256
      args = [], shutdown_delay = "0s", env = local.monitor
    }
    # Either does the work of both: when one dies, or its node, the other goes on.
    clock = {
      settings = "/etc/tsg/tsg-clock.toml", mount = "/etc/tsg/tsg-clock.toml", port = "watch", cpu = 100, memory = 128
      args = [], shutdown_delay = "0s", env = local.monitor
    }
    # They share the accounts: when one dies, the other has all.
    feed = {
      settings = "/etc/tsg/tsg.toml", mount = "/etc/tsg", port = "watch", cpu = 100, memory = 384
      args = [], shutdown_delay = "0s", env = local.monitor
    }
  }
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

  dynamic "group" {
    for_each = local.programs
    iterator = program
    labels   = [program.key]

    content {
      count          = 2
      shutdown_delay = program.value.shutdown_delay

      network {
        dynamic "port" {
          for_each = [program.value.port]
          labels   = [port.value]

          content {
            static = port.value == "http" ? var.http_port : 0
            to     = local.docker ? (port.value == "http" ? 3000 : 9102) : 0
          }
        }
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
        name     = "tsg-${program.key}"
        provider = "nomad"
        port     = program.value.port

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

      dynamic "task" {
        for_each = ["tsg-${program.key}"]
        labels   = [task.value]

        content {
          driver       = var.driver
          kill_timeout = "30s"
          env          = program.value.env

          config {
            image   = local.docker ? var.image : null
            command = local.docker ? task.value : "${var.bin}/${task.value}"
            args    = concat(["--config", program.value.settings], program.value.args)
            ports   = local.docker ? [program.value.port] : null
            volumes = local.docker ? ["${program.value.mount}:${program.value.mount}:ro"] : null
          }

          resources {
            cpu    = program.value.cpu
            memory = program.value.memory
          }
        }
      }
    }
  }
}
