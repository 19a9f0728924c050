"""Terms of the field, and the files below compass/ in which somebody who searches by name has to find them."""

from __future__ import annotations

_TABLE = """
backoff             model/backoff.py
retry               client/core/resume.py model/backoff.py
rate limit          server/sessions/rate_limit.py
connection limit    server/sessions/connection_limits.py daemons/net/connection_table.py
cluster             server/cluster/membership.py model/cluster.py store/cluster.py
membership          server/cluster/membership.py
health              gateway/http/health.py server/failure/checks.py
failure detector    server/failure/detector.py
indirect probe      server/failure/indirect_probes.py
anti-entropy        server/commit/anti_entropy.py
consistency         server/commit/anti_entropy.py
publisher           server/push/publisher.py
subscription        server/push/subscriptions.py
outbox              server/alerts/outbox.py
notifier            server/alerts/notifier.py
channel             daemons/alerts/channels.py server/alerts/notifier.py
drain               server/sessions/drain.py
router              server/router.py
dispatch            server/router.py
load balancing      model/selection/selector.py model/selection/policies.py
selector            model/selection/selector.py
debounce            agent/hooks/debounce.py
subprocess          agent/hooks/subprocesses.py
SRV                 agent/upstream/dns_discovery.py
DNS discovery       agent/upstream/dns_discovery.py
shared memory       agent/replica/shared_view.py wire/shared_view.py client/core/shared_view.py
systemd             system/systemd.py
sd_notify           system/systemd.py
OpenAPI             gateway/http/openapi.py
Prometheus          gateway/http/prometheus_sd.py
exit code           model/exit_codes.py
output              cli/output.py
context             cli/context.py admin/shell/context.py
endpoint            client/core/endpoint.py
transport           daemons/net/transport.py
supervisor          cli/run/supervisor.py daemons/workers/supervisor.py
readiness           cli/run/readiness.py
restart policy      cli/run/restart_policy.py
snapshot            server/push/snapshot_cache.py
replica             agent/replica/replica.py
journal             agent/registration/journal.py
backup              store/offline/backup.py
migration           store/migrate.py store/migrations/env.py
session             server/sessions/session.py
webhook             daemons/alerts/webhook.py
admission           server/push/admission.py
flow control        server/sessions/flow_control.py
TLS context         pki/tls_contexts.py
"""

TERMS: dict[str, tuple[str, ...]] = {
    line[:20].strip(): tuple(line[20:].split()) for line in _TABLE.splitlines() if line.strip()
}
"""Term -> paths, of which one has to be found."""
