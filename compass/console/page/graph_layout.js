// Layered layout of a directed graph (after Sugiyama, Tagawa and Toda, 1981), for dozens of nodes. Pure.
//
// Layers by longest path, so that a dependant stands left of its dependencies; long edges get bends in the layers
// between; each layer is ordered by the mean of its neighbours, down and up again; then positions are assigned. Nodes
// without edges stand in rows below. Cycles are allowed: an edge that closes one goes backwards.

const SWEEPS = 6;

/** Return the positions of nodes and edges. `nodes`: names; `edges`: [from, to]. A place is the centre of a box. */
export function layout(nodes, edges, { width, height, gapX, gapY }) {
  const known = new Set(nodes);
  const pairs = edges.filter(([from, to]) => from !== to && known.has(from) && known.has(to));
  const joined = new Set(pairs.flat());
  const forward = withoutCycles(
    nodes.filter((name) => joined.has(name)),
    pairs,
  );
  const layerOf = longestPaths(forward);
  const { layers, chains } = withBends(forward, layerOf);
  order(layers, chains);
  const at = new Map();
  const tallest = Math.max(0, ...layers.map((layer) => layer.length));
  layers.forEach((layer, column) => {
    const top = ((tallest - layer.length) * (height + gapY)) / 2;
    layer.forEach((name, row) => {
      at.set(name, { x: column * (width + gapX) + width / 2, y: top + row * (height + gapY) + height / 2 });
    });
  });
  let bottom = tallest * (height + gapY);
  const columns = Math.max(layers.length, 3);
  nodes
    .filter((name) => !joined.has(name))
    .forEach((name, number) => {
      const x = (number % columns) * (width + gapX) + width / 2;
      at.set(name, { x, y: bottom + Math.floor(number / columns) * (height + gapY) + height / 2 });
    });
  const alone = nodes.length - joined.size;
  bottom += Math.ceil(alone / columns) * (height + gapY);
  const used = Math.max(layers.length, alone ? Math.min(alone, columns) : 0);
  return {
    places: new Map(nodes.map((name) => [name, at.get(name)])),
    edges: chains.map(({ from, to, chain, turned }) => ({
      from,
      to,
      points: (turned ? [...chain].reverse() : chain).map((name) => at.get(name)),
    })),
    width: Math.max(0, used * (width + gapX) - gapX),
    height: Math.max(0, bottom - gapY),
  };
}

/** Return the edges; those that close a cycle are reversed. */
function withoutCycles(nodes, pairs) {
  const out = new Map(nodes.map((name) => [name, []]));
  for (const [from, to] of pairs) out.get(from).push(to);
  const mark = new Map();
  const made = [];
  const visit = (name) => {
    mark.set(name, "open");
    for (const to of out.get(name)) {
      const turned = mark.get(to) === "open";
      made.push(turned ? { from: to, to: name, turned } : { from: name, to, turned });
      if (!mark.has(to)) visit(to);
    }
    mark.set(name, "done");
  };
  const reached = new Set(pairs.map(([, to]) => to));
  for (const name of [...nodes].sort((a, b) => reached.has(a) - reached.has(b))) if (!mark.has(name)) visit(name);
  return { nodes, edges: made };
}

function longestPaths({ nodes, edges }) {
  const layer = new Map(nodes.map((name) => [name, 0]));
  // Bellman and Ford: at most as many rounds as nodes, and usually far fewer.
  for (let round = 0, moved = true; moved && round <= nodes.length; round += 1) {
    moved = false;
    for (const { from, to } of edges) {
      if (layer.get(to) <= layer.get(from)) {
        layer.set(to, layer.get(from) + 1);
        moved = true;
      }
    }
  }
  return layer;
}

function withBends({ nodes, edges }, layerOf) {
  const layers = Array.from({ length: Math.max(-1, ...layerOf.values()) + 1 }, () => []);
  for (const name of nodes) layers[layerOf.get(name)].push(name);
  const chains = edges.map(({ from, to, turned }, number) => {
    const chain = [from];
    for (let layer = layerOf.get(from) + 1; layer < layerOf.get(to); layer += 1) {
      const bend = `\0${number} ${layer}`;
      layers[layer].push(bend);
      chain.push(bend);
    }
    chain.push(to);
    return turned ? { from: to, to: from, chain, turned } : { from, to, chain, turned };
  });
  return { layers, chains };
}

function order(layers, chains) {
  const before = new Map();
  const after = new Map();
  const join = (map, one, other) => map.set(one, [...(map.get(one) ?? []), other]);
  for (const { chain } of chains) {
    for (let step = 1; step < chain.length; step += 1) {
      join(before, chain[step], chain[step - 1]);
      join(after, chain[step - 1], chain[step]);
    }
  }
  const sweep = (layer, fixed, neighbours) => {
    const row = new Map(fixed.map((name, number) => [name, (number + 0.5) / fixed.length]));
    const own = new Map(layer.map((name, number) => [name, (number + 0.5) / layer.length]));
    const mean = (name) => {
      const near = (neighbours.get(name) ?? []).filter((other) => row.has(other)).map((other) => row.get(other));
      return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : own.get(name);
    };
    const means = new Map(layer.map((name) => [name, mean(name)]));
    layer.sort((a, b) => means.get(a) - means.get(b));
  };
  for (let round = 0; round < SWEEPS; round += 1) {
    for (let number = 1; number < layers.length; number += 1) sweep(layers[number], layers[number - 1], before);
    for (let number = layers.length - 2; number >= 0; number -= 1) sweep(layers[number], layers[number + 1], after);
  }
}
