# One Nomad for the whole stack: a server and a client in one, whose jobs run in its own container. The datacenter comes by a flag.

data_dir             = "/var/lib/nomad"
disable_update_check = true

# Its HTTP API is for the stack's own networks: whoever reaches it runs programs here.
addresses {
  http = "0.0.0.0"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

# The container's address changes from start to start; loopback does not.
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

server {
  enabled          = true
  bootstrap_expect = 1
}

client {
  enabled           = true
  network_interface = "lo"

  meta {
    role = "automater"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}
