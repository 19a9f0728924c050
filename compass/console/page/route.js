// Links to one thing of the page, as the fragment of the address: `#incident=failure%20cart.shop%20192.0.2.7:80`. Pure.
//
// A fragment is not sent to any server, so a link that is copied into a ticket contains names of the catalogue only.

const KINDS = new Set(["incident", "listener", "service", "category", "host"]);

/** Return the fragment for an incident (its id), a listener (service and endpoint), a service, a category or a host. */
export function linkTo(kind, id) {
  return `#${kind}=${encodeURIComponent(id)}`;
}

/** Return the kind and the id of a fragment, or null if it is not one of these links. */
export function parseLink(fragment) {
  const [kind, ...rest] = fragment.replace(/^#/, "").split("=");
  if (!KINDS.has(kind) || !rest.length) return null;
  try {
    const id = decodeURIComponent(rest.join("="));
    return id ? { kind, id } : null;
  } catch {
    return null;
  }
}
