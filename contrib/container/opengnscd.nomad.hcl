# opengnscd on each client of Nomad, and a service that registers at it: docs/howto/container.md.
#
#   nomad job run contrib/container/opengnscd.nomad.hcl
job "opengnscd" {
  type = "system"

  group "opengnscd" {
    network {
      mode = "host"
    }

    task "opengnscd" {
      driver = "docker"
      user   = "4863:4863"

      config {
        image           = "opengnscd"
        network_mode    = "host"
        pid_mode        = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        volumes = [
          "/etc/opengns:/etc/opengns:ro",
          "/var/lib/opengns:/var/lib/opengns",
          "/run/opengns:/run/opengns",
        ]
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }

    restart {
      attempts = 10
      interval = "1m"
      delay    = "2s"
      mode     = "delay"
    }
  }
}
